"""`python train.py`: preflight, a process for each device, and in each process the distillation (runs/distillation.py).

docs/reference/run_folder.md lists what a run leaves.
"""

import contextlib
import shlex
from collections.abc import Iterator
from pathlib import Path

from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig

from mangakd.cli import typed
from mangakd.cli.given import run_of, write_settings
from mangakd.cli.logs import start_logging
from mangakd.cli.plan import plan_of
from mangakd.cli.processes import join, leave_no_folder, on_each_device, preflight_passes
from mangakd.core import ranks
from mangakd.core.locks import waiting_lock
from mangakd.runs.distillation import distillation
from mangakd.runs.given import Given
from mangakd.runs.results import read_metrics
from mangakd.runs.resume import finished_score
from mangakd.runs.run import Run
from mangakd.training.callbacks.save_last import Interrupted


def run(config: DictConfig) -> float | None:
    """One run; returns the student's best validation score, by which sweepers choose. None for `validate` and `plan`."""
    own = Path(HydraConfig.get().runtime.output_dir)
    this = run_of(config, own)
    if config.plan:
        start_logging(None)
        print(plan_of(config, this))
        leave_no_folder(own)
        return None
    if (score := finished_score(this.given, config.task.get("monitor"))) is not None:
        return score
    is_rank = join(config, this)
    folder = ranks.share(own)  # one folder; the clock of each rank gave it another name
    if own != folder:
        leave_no_folder(own)
        this = run_of(config, folder)
    if not preflight_passes(config, this):
        return None
    on_each_device(train, config, this, is_rank, folder)
    metrics = ranks.share(read_metrics(folder) if ranks.is_first() else {})  # when the first rank has written them
    ranks.finish()
    return metrics[f"val/{config.task.monitor}"]


def train(config: DictConfig, this: Run) -> None:
    """The run, in each of its processes."""
    with stoppable(this.given), alone_in_folder(this.given):
        distillation(this)


@contextlib.contextmanager
def stoppable(given: Given) -> Iterator[None]:
    """A run that is stopped by a signal prints the command that resumes it."""
    try:
        yield
    except Interrupted as stop:
        again = shlex.join([*given.command, f"hydra.run.dir={given.folder}", "resume=auto"])
        print(f"{stop}." if given.sweep else f"{stop}. Go on with:\n  {again}", flush=True)
        raise SystemExit(128 + stop.number) from None


@contextlib.contextmanager
def alone_in_folder(given: Given) -> Iterator[None]:
    """One run at a time in a folder: ranks whose launcher was killed may still be writing when the run is resumed.

    Writes the settings and the command into the folder.
    """
    start_logging(given.folder)
    if not ranks.is_first():
        yield
        return
    with waiting_lock(given.folder / "logs" / "lock", "training in this folder"):
        write_settings(given.settings(None), given.folder)
        typed.keep(given.folder)
        yield
