"""The processes of a command, one for each device: torchrun or srun started them and they join each other, or they start here.

What stands before them: preflight, on the first rank.
"""

import contextlib
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

from hydra.core.hydra_config import HydraConfig
from hydra.core.utils import setup_globals
from omegaconf import DictConfig, OmegaConf

from mangakd.cli import preflight
from mangakd.cli.app import explain, register_resolvers
from mangakd.cli.given import SETTINGS, run_of
from mangakd.cli.logs import start_logging
from mangakd.core import ranks
from mangakd.core.errors import UserError
from mangakd.runs.run import Run
from mangakd.runs.summary import summary
from mangakd.training import launch

Work = Callable[[DictConfig, Run], None]


def join(config: DictConfig, this: Run) -> bool:
    """Whether this process is a rank that another command has started."""
    if not several(config) and launch.launcher_processes() <= 1:
        return False
    try:
        return launch.join(this.parts.hardware, HydraConfig.get().job.config_name or "train")
    except UserError:
        leave_no_folder(this.given.folder)
        raise


def several(config: DictConfig) -> bool:
    """Whether the profile has more than one device; preflight reports a wrong value."""
    counts = (config.hardware.devices, config.hardware.nodes)
    return all(isinstance(count, int) for count in counts) and math.prod(counts) > 1


def preflight_passes(config: DictConfig, this: Run) -> bool:
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


def on_each_device(work: Work, config: DictConfig, this: Run, is_rank: bool, folder: Path | None) -> None:
    """work(config, this) in a process for each device. is_rank: this process is one. folder: as in launch.start."""
    hardware = this.parts.hardware
    if hardware.world == 1 or is_rank:
        work(config, this)
        return
    # As plain values: the classes that plugins describe their settings with cannot be pickled.
    plain = OmegaConf.create(OmegaConf.to_container(HydraConfig.instance().cfg))
    launch.start(_on_a_rank, (work, config, plain, this.given.folder), hardware, folder, explain)


def _on_a_rank(work: Work, config: DictConfig, hydra_config: Any, folder: Path) -> None:
    setup_globals()
    register_resolvers()
    HydraConfig.instance().cfg = hydra_config
    work(config, run_of(config, folder))
