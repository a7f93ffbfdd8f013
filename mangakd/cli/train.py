"""`python train.py`: preflight, a process for each device, and in each process the distillation (runs/distillation.py).

docs/reference/run_folder.md lists what a run leaves.
"""

import contextlib
import math
import shlex
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from hydra.core.hydra_config import HydraConfig
from hydra.core.utils import setup_globals
from omegaconf import DictConfig, OmegaConf

from mangakd.cli import preflight, typed
from mangakd.cli.app import explain, register_resolvers
from mangakd.cli.given import SETTINGS, run_of, write_settings
from mangakd.cli.logs import start_logging
from mangakd.cli.plan import plan_of
from mangakd.core import ranks
from mangakd.core.errors import UserError
from mangakd.core.locks import waiting_lock
from mangakd.runs.distillation import distillation
from mangakd.runs.given import Given
from mangakd.runs.results import read_metrics
from mangakd.runs.resume import finished_score
from mangakd.runs.run import Run
from mangakd.runs.summary import summary
from mangakd.training import launch
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
    joined = join(config, this)
    folder = ranks.share(own)  # one folder; the clock of each rank gave it another name
    if own != folder:
        leave_no_folder(own)
        this = run_of(config, folder)
    if not checked(config, this):
        return None
    hardware = this.parts.hardware
    if hardware.world > 1 and not joined:
        # As plain values: the classes that plugins describe their settings with cannot be pickled.
        plain = OmegaConf.create(OmegaConf.to_container(HydraConfig.instance().cfg))
        launch.start(on_a_rank, (config, plain, folder), hardware, folder, explain)
    else:
        with stoppable(this.given), alone_in_folder(this.given):
            distillation(this)
    metrics = ranks.share(read_metrics(folder) if ranks.is_first() else {})  # when the first rank has written them
    ranks.finish()
    return metrics[f"val/{config.task.monitor}"]


def join(config: DictConfig, this: Run) -> bool:
    """Whether this process is a rank that another command has started."""
    if not several(config) and launch.launcher_processes() <= 1:
        return False
    try:
        return launch.join(this.parts.hardware)
    except UserError:
        leave_no_folder(this.given.folder)
        raise


def several(config: DictConfig) -> bool:
    """Whether the profile has more than one device; preflight reports a wrong value."""
    counts = (config.hardware.devices, config.hardware.nodes)
    return all(isinstance(count, int) for count in counts) and math.prod(counts) > 1


def checked(config: DictConfig, this: Run) -> bool:
    """Preflight, on the first rank. False for validate=true, which asks for nothing else."""
    start_logging(None)
    problem, folder = None, this.given.folder
    if ranks.is_first():
        try:
            preflight.check(config, this)
        except UserError as error:
            problem = error
        finally:
            if config.validate or not (folder / SETTINGS).exists():
                leave_no_folder(folder)
    if ranks.share(problem is not None):
        raise problem or ranks.leave_after_first()
    if config.validate and ranks.is_first():
        print(f"no problem found: {summary(this)}")
    return not config.validate


def leave_no_folder(folder: Path) -> None:
    """Remove the folder of a command that trains nothing; a folder with files in it stays."""
    with contextlib.suppress(OSError):
        folder.rmdir()


def on_a_rank(config: DictConfig, hydra_config: Any, folder: Path) -> None:
    """The run in a process that was started for one device."""
    setup_globals()
    register_resolvers()
    HydraConfig.instance().cfg = hydra_config
    this = run_of(config, folder)
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
