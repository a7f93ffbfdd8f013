"""Many runs of one command (`-m`, `sweep=…`): Hydra expands and starts them; here each is announced, a failure is told and
kept while the others go on, and the end is a report over all of them.

Only hydra is imported here: `--help` answers without torch.
"""

import functools
import math
import shlex
import sys
import traceback
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

from hydra.core.hydra_config import HydraConfig
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override
from hydra.experimental.callback import Callback
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf

from mangakd.cli import typed
from mangakd.core.errors import UserError
from mangakd.core.invocation import command_words
from mangakd.core.run_folder import ERROR, LAST, metrics_of

Job = Callable[[DictConfig], Any]


class RunFailed(UserError):
    """One run of a sweep failed; it has been told."""


@dataclass
class Sweep:
    """The sweep that this process has started. runs: how many, where that can be told beforehand."""

    folder: Path
    runs: int | None
    current: ClassVar["Sweep | None"] = None


class Started(Callback):
    """Hydra's callback (conf/train.yaml) by which this process knows that it starts a sweep."""

    def on_multirun_start(self, config: DictConfig, **_: Any) -> None:
        overrides = sweep_overrides(config.hydra.sweeper, typed.as_typed(config.hydra))
        counts = [len(list(o.sweep_iterator())) if o.is_discrete_sweep() else 0 for o in overrides.values()]
        Sweep.current = Sweep(Path(config.hydra.sweep.dir), math.prod(counts) or None)


def sweep_overrides(sweeper: DictConfig, words: list[str]) -> dict[str, Override]:
    """Key → its values, of the keys that a sweep varies. What is typed replaces the sweeper's params."""
    params = [f"{key}={value}" for key, value in (sweeper.get("params") or {}).items()]
    overrides = OverridesParser.create().parse_overrides([*params, *words])
    last = {override.key_or_group: override for override in overrides}
    return {key: override for key, override in last.items() if override.is_sweep_override()}


def sweeping() -> bool:
    """Whether this is a run of a sweep, in whichever process."""
    return HydraConfig.initialized() and HydraConfig.get().mode == RunMode.MULTIRUN


def folder_of_all() -> Path:
    """Where the runs of this run's sweep are. Not hydra.sweep.dir: another process would read another time into it."""
    hydra = HydraConfig.get()
    return Path(hydra.runtime.output_dir).parents[len(Path(str(hydra.sweep.subdir)).parts) - 1]


def own_overrides() -> list[str]:
    """This run's overrides that its sweep varies; all of them where Hydra has not kept what was typed (Optuna with `-m`)."""
    hydra = HydraConfig.get()
    file = folder_of_all() / "multirun.yaml"
    keys = sweep_overrides(hydra.sweeper, typed.as_typed(OmegaConf.load(file).hydra) if file.is_file() else [])
    words = typed.as_typed(hydra)
    return [word for word in words if word.partition("=")[0].lstrip("+") in keys] or words


def one_of_many(job: Job, explain: Callable[[BaseException], str | None]) -> Job:
    """`job`, announced, with its failure told at once and kept in its folder. A run that is none of many is left alone."""

    @functools.wraps(job)  # Hydra names jobs by where this function says it is from
    def run(config: DictConfig) -> Any:
        if not sweeping():
            return job(config)
        folder = Path(HydraConfig.get().runtime.output_dir)
        name = _announce(int(HydraConfig.get().job.num))
        typed.keep(folder)
        (folder / ERROR).unlink(missing_ok=True)
        try:
            return job(config)
        except Exception as error:
            message = explain(error)
            if message is None:
                traceback.print_exc()
                message = f"{type(error).__name__}: {error}"
            (folder / ERROR).write_text(message + "\n")
            print(f"\nerror in {name}: {message}\nThe other runs go on.", file=sys.stderr, flush=True)
            raise RunFailed(f"{name}: {message}") from None

    return run


def _announce(number: int) -> str:
    """Says which run begins, in which of how many, and how long the rest takes. Returns its name: its folder's."""
    name = f"run {number} ({' '.join(own_overrides())})"
    runs = Sweep.current.runs if Sweep.current is not None else None
    print(f"\n{name}{'' if runs is None else _place(number, runs)}", flush=True)
    return name


def _place(number: int, runs: int) -> str:
    """By the latest run that is done; the first one also fine-tunes the teacher, and says too much."""
    seconds = next(
        (metrics[LAST] for n in range(number, 0, -1) if (metrics := metrics_of(folder_of_all() / str(n - 1)))), None
    )
    rest = "" if seconds is None else f", about {math.ceil(seconds * (runs - number) / 60)} min left"
    return f": {number + 1} of {runs}{rest}"


def ended() -> None:
    """What all runs together say; nothing where this process has started no sweep. Raises UserError where runs failed."""
    if (sweep := Sweep.current) is None:
        return
    from mangakd.cli import judges
    from mangakd.evaluation import sweep as sweeps
    from mangakd.evaluation.report.sweep import write_sweep

    Sweep.current = None
    runs = sweeps.read(sweep.folder)
    if any(run.finished for run in runs):
        table = write_sweep(sweep.folder, judges.of_run(sweep.folder))
        print(f"\n{table}\nreport of the sweep: {sweep.folder / 'report.html'} and report.md")
    failed = [run for run in runs if run.error]
    if failed:
        raise UserError(f"{len(failed)} of {len(runs)} runs failed; the first: {failed[0].error}\n{go_on(sweep)}")


def stopped() -> None:
    """By Ctrl-C or SIGTERM: says how to go on."""
    if Sweep.current is not None:
        print(go_on(Sweep.current), flush=True)


def go_on(sweep: Sweep) -> str:
    """What runs the missing runs, and only these."""
    words = [word for word in sys.argv[1:] if not word.startswith(("hydra.sweep.dir=", "resume="))]
    again = shlex.join([*command_words("train"), *words, f"hydra.sweep.dir={sweep.folder}", "resume=auto"])
    return f"Finished runs stay; the others are begun again, or gone on with, by\n  {again}"
