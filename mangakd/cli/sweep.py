"""Many runs of one command (`-m`, `sweep=…`): Hydra expands and starts them; here each is announced, a failure is told and
kept while the others go on, and the end is a report over all of them.

Only hydra is imported here: `--help` answers without torch.
"""

import functools
import math
import shlex
import sys
import time
import traceback
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar

from hydra.core.hydra_config import HydraConfig
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override
from hydra.experimental.callback import Callback
from hydra.types import RunMode
from omegaconf import DictConfig

from mangakd.cli import typed
from mangakd.core.errors import UserError

ERROR = "error.txt"
Job = Callable[[DictConfig], Any]


class RunFailed(UserError):
    """One run of a sweep failed; it has been told."""


@dataclass
class Sweep:
    """The sweep that this process has started. runs: how many, where that can be told beforehand."""

    folder: Path
    runs: int | None
    swept: tuple[str, ...]
    started: float = field(default_factory=time.perf_counter)
    trained: int = 0
    current: ClassVar["Sweep | None"] = None

    def left(self, number: int) -> str:
        """` (about 31 min left)`, once a run has shown how long they take."""
        if self.runs is None or not self.trained:
            return ""
        seconds = (time.perf_counter() - self.started) / self.trained * (self.runs - number)
        return f" (about {math.ceil(seconds / 60)} min left)"


class Started(Callback):
    """Hydra's callback (conf/train.yaml) by which this process knows that it starts a sweep."""

    def on_multirun_start(self, config: DictConfig, **_: Any) -> None:
        swept = varied(config.hydra.sweeper, list(config.hydra.overrides.task))
        counts = [len(list(o.sweep_iterator())) if o.is_discrete_sweep() else 0 for o in swept.values()]
        Sweep.current = Sweep(Path(config.hydra.sweep.dir), math.prod(counts) or None, tuple(swept))


def varied(sweeper: DictConfig, words: list[str]) -> dict[str, Override]:
    """Key → its values, of the keys that a sweep varies. What is typed replaces the sweeper's params."""
    params = [f"{key}={value}" for key, value in (sweeper.get("params") or {}).items()]
    overrides = OverridesParser.create().parse_overrides([*params, *words])
    last = {override.key_or_group: override for override in overrides}
    return {key: override for key, override in last.items() if override.is_sweep_override()}


def sweeping() -> bool:
    """Whether this is a run of a sweep, in whichever process."""
    return HydraConfig.initialized() and HydraConfig.get().mode == RunMode.MULTIRUN


def one_of_many(job: Job, explain: Callable[[BaseException], str | None]) -> Job:
    """`job`, announced, with its failure told at once and kept in its folder. A run that is none of many is left alone."""

    @functools.wraps(job)  # Hydra names jobs by where this function says it is from
    def run(config: DictConfig) -> Any:
        if not sweeping():
            return job(config)
        settings = HydraConfig.get()
        kept = Path(settings.runtime.output_dir) / ERROR
        name = _announce(int(settings.job.num), list(settings.overrides.task))
        typed.keep(kept.parent)
        kept.unlink(missing_ok=True)
        try:
            score = job(config)
        except Exception as error:
            message = explain(error)
            if message is None:
                traceback.print_exc()
                message = f"{type(error).__name__}: {error}"
            kept.write_text(message + "\n")
            print(f"\nerror in {name}: {message}\nThe other runs go on.", file=sys.stderr, flush=True)
            raise RunFailed(f"{name}: {message}") from None
        if Sweep.current is not None:
            Sweep.current.trained += 1
        return score

    return run


def _announce(number: int, overrides: list[str]) -> str:
    sweep = Sweep.current
    swept = [word for word in overrides if sweep is None or word.partition("=")[0].lstrip("+") in sweep.swept]
    name = f"run {number}" if sweep is None or sweep.runs is None else f"run {number + 1} of {sweep.runs}"
    name += f" ({' '.join(swept)})"
    print(f"\n{name}{sweep.left(number) if sweep else ''}", flush=True)
    return name


def ended() -> None:
    """What all runs together say; nothing where this process has started no sweep. Raises UserError where runs failed."""
    if (sweep := Sweep.current) is None:
        return
    from mangakd.evaluation import sweep as runs
    from mangakd.evaluation.report.sweep import write_sweep

    Sweep.current = None
    found = runs.read(sweep.folder)
    if any(run.finished for run in found):
        print(f"\n{write_sweep(sweep.folder)}\nreport of the sweep: {sweep.folder / 'report.html'} and report.md")
    failed = [run for run in found if run.error]
    if failed:
        raise UserError(f"{len(failed)} of {len(found)} runs failed; the first: {failed[0].error}\n{go_on(sweep)}")


def stopped() -> None:
    """By Ctrl-C or SIGTERM: says how to go on."""
    if Sweep.current is not None:
        print(go_on(Sweep.current), flush=True)


def go_on(sweep: Sweep) -> str:
    """What runs the missing runs, and only these."""
    words = [word for word in sys.argv[1:] if not word.startswith(("hydra.sweep.dir=", "resume="))]
    again = shlex.join(["python", "train.py", *words, f"hydra.sweep.dir={sweep.folder}", "resume=auto"])
    return f"Finished runs stay; the missing ones are made by\n  {again}"
