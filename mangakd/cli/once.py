"""One run from Python, for notebooks and tests: what `mangakd train <overrides>` does, in this process.

    from mangakd.cli.once import train

    folder = train("data=files", "data.path=train.csv", "trainer.max_epochs=2", folder="runs/first")
    json.loads((folder / "metrics.json").read_text())["test/accuracy"]

A run sets Hydra's state and the root logger's handlers, which belong to the whole process. Both are put back afterwards, so
that a notebook goes on as it began.
"""

import contextlib
import logging
from collections.abc import Iterator
from pathlib import Path

import hydra
from hydra.core.global_hydra import GlobalHydra
from hydra.core.hydra_config import HydraConfig
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf

from mangakd.cli.app import explain, register_resolvers
from mangakd.cli.grammar import check_overrides
from mangakd.cli.searchpath import CONF
from mangakd.core.errors import UserError


def train(*overrides: str, folder: Path | str) -> Path:
    """Preflight and a whole run; returns its folder, absolute. docs/reference/run_folder.md lists what it leaves.

    overrides: as typed, without a shell's quotes. folder: what `hydra.run.dir` is for the command. Several devices are
    processes of their own; a script that asks for them calls this under `if __name__ == "__main__"`. Ctrl-C writes a
    checkpoint to go on from (`resume=auto`) and raises SystemExit, as the command does.

    Raises UserError with the command's message for all that the command tells, and for a sweep, which is many runs.
    """
    from mangakd.cli import train as command  # loads torch

    place = Path(folder).expanduser().absolute()
    with own_logging(), hydra_ready():
        try:
            check_overrides(overrides)
            config = config_of("train", *overrides, folder=place)
            if config.hydra.mode == RunMode.MULTIRUN:
                raise UserError(
                    "a sweep is many runs: type its command (docs/how-to/sweeps.md), or call this for each run."
                )
            command.run(as_hydra_gives_it(config))
        except Exception as error:
            if (message := explain(error)) is None:
                raise
            raise UserError(message) from error
    return place


def config_of(command: str, *overrides: str, folder: Path) -> DictConfig:
    """The config of a command and, under `hydra`, Hydra's own; HydraConfig describes this run from now on.

    Within `hydra_ready`. Raises Hydra's errors for what cannot be composed.
    """
    config = hydra.compose(command, list(overrides), return_hydra_config=True)
    config.hydra.runtime.output_dir = str(folder)
    HydraConfig.instance().set_config(config)
    return config


def as_hydra_gives_it(config: DictConfig) -> DictConfig:
    """Without Hydra's own."""
    return OmegaConf.masked_copy(config, [str(key) for key in config if key != "hydra"])


@contextlib.contextmanager
def hydra_ready() -> Iterator[None]:
    """Hydra knows conf/ and its resolvers; afterwards it is as it was."""
    outer, described = GlobalHydra.instance().hydra, HydraConfig.instance().cfg
    register_resolvers()
    GlobalHydra.instance().clear()
    try:
        with hydra.initialize_config_dir(str(CONF), version_base="1.3"):
            yield
    finally:
        GlobalHydra.instance().hydra, HydraConfig.instance().cfg = outer, described


@contextlib.contextmanager
def own_logging() -> Iterator[None]:
    """What is set for logging within is gone afterwards."""
    root = logging.getLogger()
    handlers, level = root.handlers, root.level
    root.handlers = []  # a run closes those that it finds
    try:
        yield
    finally:
        for handler in root.handlers:
            handler.close()
        root.handlers = handlers
        root.setLevel(level)
