"""Decides a rollout: raise, hold, roll back, complete. Pure counting, without clock, files or questions of its own.

    running ──raise──► running … ──complete──► complete
    running ──hold──► held            running, held, complete ──roll back──► rolled back

Three families of tests (sprt.py) watch the student. `quality` compares the expected agreement with a fall of `agreement.hold`: H0
allows a raise, H1 holds. `agreement` compares a fall of `hold` with a fall of `rollback`, and `errors` the expected errors with
`errors.rollback`: H1 of either rolls back, in every phase. A raise needs H0 of quality and of errors in this step, `step.samples`
comparisons and `step.seconds`. Each step starts its tests anew, because a student may behave differently under more load.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from mangakd.runtime.rollout.settings import Settings
from mangakd.runtime.rollout.sprt import Test

Phase = Literal["running", "held", "complete", "rolled back"]
Kind = Literal["raise", "hold", "roll back", "complete"]
KINDS: tuple[Kind, ...] = ("raise", "hold", "roll back", "complete")
PHASES: tuple[Phase, ...] = ("running", "held", "complete", "rolled back")
COUNTS = ("student", "student_errors", "incumbent", "incumbent_errors", "compared", "agreed", "dropped")
RESETS: tuple[Kind, ...] = ("raise", "roll back")  # after which COUNTS begin at 0
PHASE_AFTER: Mapping[Kind, Phase] = {
    "raise": "running", "hold": "held", "roll back": "rolled back", "complete": "complete",
}  # fmt: skip


@dataclass(frozen=True)
class Decision:
    """why: the test that decided. before, after: the student's share of the questions."""

    kind: Kind
    why: str
    before: float
    after: float


class Plan:
    """now: seconds since 1970, at which the first step begins. counts: of this step."""

    def __init__(self, settings: Settings, now: float):
        self.settings = settings
        self.phase: Phase = "running"
        self.step = 0
        self.began = now
        self.decisions = 0
        self.counts = dict.fromkeys(COUNTS, 0)
        self.tests = {name: Test(hypotheses) for name, hypotheses in settings.hypotheses.items()}

    @property
    def share(self) -> float:
        """Of the questions, for the student to answer."""
        return 0.0 if self.phase == "rolled back" else self.settings.steps[self.step]

    def count(self, name: str) -> None:
        self.counts[name] += 1

    def compare(self, agreed: bool, now: float) -> Decision | None:
        """Count a comparison of the two answers to a question."""
        if self.phase == "rolled back":
            return None
        self.counts["compared"] += 1
        self.counts["agreed"] += agreed
        quality = self.tests["quality"].observe(not agreed) if self.phase == "running" else None
        if self.tests["agreement"].observe(not agreed) == "H1":
            return self._decision("roll back", "agreement fell by more than agreement.rollback")
        if quality == "H1":
            return self._decision("hold", "agreement fell by more than agreement.hold")
        return self.due(now)

    def answer(self, error: bool, now: float) -> Decision | None:
        """Count a question that the student answered, or failed at while the incumbent answered."""
        if self.phase == "rolled back":
            return None
        if self.tests["errors"].observe(error) == "H1":
            return self._decision("roll back", "errors of the student are over errors.rollback")
        return self.due(now)

    def due(self, now: float) -> Decision | None:
        """The raise, if everything that it needs is there."""
        needed = (self.tests["quality"], self.tests["errors"])
        if (
            self.phase != "running"
            or not all(test.passes and test.llr <= 0 for test in needed)
            or self.counts["compared"] < self.settings.step.samples
            or now - self.began < self.settings.step.seconds
        ):
            return None
        last = self.step == len(self.settings.steps) - 1
        return self._decision("complete" if last else "raise", "agreement and errors are as expected")

    def apply(self, decision: Decision, now: float) -> None:
        self.decisions += 1
        self.phase = PHASE_AFTER[decision.kind]
        if decision.kind == "raise":
            self.step += 1
            self.begin_step(now)
        elif decision.kind == "roll back":
            self.began, self.counts = now, dict.fromkeys(COUNTS, 0)

    def begin_step(self, now: float) -> None:
        self.began, self.counts = now, dict.fromkeys(COUNTS, 0)
        for test in self.tests.values():
            test.begin_step()

    def state(self) -> dict[str, Any]:
        """Plain data, from which `restore` goes on."""
        return {
            "phase": self.phase, "step": self.step, "share": self.share, "began": round(self.began, 3),
            "decisions": self.decisions, "counts": dict(self.counts),
            "tests": {name: test.numbers() for name, test in self.tests.items()},
        }  # fmt: skip

    def restore(self, state: Mapping[str, Any]) -> None:
        """Raises KeyError, TypeError or ValueError for what is no state."""
        if state["phase"] not in PHASES:
            raise ValueError(f"phase {state['phase']!r}")
        self.phase, self.decisions = state["phase"], int(state["decisions"])
        self.step = min(int(state["step"]), len(self.settings.steps) - 1)
        self.began = float(state["began"])
        self.counts = {name: int(state["counts"][name]) for name in COUNTS}
        for name, test in self.tests.items():
            test.restore(state["tests"][name])

    def change_rules(self, share: float, now: float) -> None:
        """Go on under other rules: the last step that is not over `share`, its tests anew, no hold. A rollback stays."""
        steps = self.settings.steps
        self.step = max([0, *(i for i, step in enumerate(steps) if step <= share)])
        if self.phase == "held" or (self.phase == "complete" and steps[self.step] < steps[-1]):
            self.phase = "running"
        self.begin_step(now)

    def _decision(self, kind: Kind, why: str) -> Decision:
        after = {"raise": self.settings.steps[min(self.step + 1, len(self.settings.steps) - 1)], "roll back": 0.0}
        return Decision(kind, why, self.share, after.get(kind, self.share))
