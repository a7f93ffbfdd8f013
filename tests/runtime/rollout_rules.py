"""Rollouts for the tests: rules that decide after few questions, and a clock that the test turns."""

from pathlib import Path
from typing import Any

from mangakd.runtime.rollout.settings import Agreement, Errors, Settings, Step

# 12 comparisons that agree pass the first test of quality, 4 that do not hold, and 5 roll back; 32 answers pass errors, 2 fail.
QUICK: dict[str, Any] = {
    "agreement": Agreement(expected=0.9, hold=0.2, rollback=0.5),
    "errors": Errors(expected=0.01, rollback=0.1),
    "step": Step(samples=10, seconds=60),
    "steps": (0.25, 1.0),
}


def quick(tmp_path: Path, **changes: Any) -> Settings:
    return Settings(**{"incumbent": "http://nowhere", "log": str(tmp_path / "rollout.jsonl"), **QUICK, **changes})


class Clock:
    now = 1_800_000_000.0

    def __call__(self) -> float:
        return self.now
