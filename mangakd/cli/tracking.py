"""The loggers of a run, from the config; a run of a sweep is called by what it differs in and grouped by the sweep's folder."""

from pathlib import Path
from typing import Any

from hydra.core.hydra_config import HydraConfig
from hydra.utils import instantiate
from omegaconf import DictConfig, OmegaConf

from mangakd.cli.sweep import sweeping, varied
from mangakd.core.errors import UserError

LONGEST = 128  # characters of a name that W&B takes


def built(loggers: DictConfig) -> list[Any]:
    """Lightning's loggers. Raises UserError for one whose package is not installed."""
    found = []
    for name in map(str, loggers):
        options = loggers[name]
        try:
            found.append(instantiate(options, **in_sweep(options)))
        except Exception as error:
            if not isinstance(error.__cause__, ImportError):
                raise
            raise UserError(
                f"logger={name} needs a package that is not installed: pip install 'mangakd[{name}]', or leave {name} "
                "out of logger=[…]."
            ) from error
    return found


def in_sweep(options: DictConfig) -> dict[str, str]:
    """`group` and `name` for a logger that knows both and was given neither; nothing for a run that is none of many."""
    if not sweeping():
        return {}
    hydra = HydraConfig.get()
    # Not hydra.sweep.dir: another process would read another time into it.
    folder = Path(hydra.runtime.output_dir).parents[len(Path(str(hydra.sweep.subdir)).parts) - 1]
    place = {"group": folder.name, "name": ",".join(swept(folder))[:LONGEST]}
    return {key: value for key, value in place.items() if key in options and options[key] is None}


def swept(folder: Path) -> list[str]:
    """This run's overrides that the sweep varies; all of them where Hydra has not kept what was typed (Optuna with `-m`)."""
    hydra = HydraConfig.get()
    kept = folder / "multirun.yaml"
    keys = varied(hydra.sweeper, list(OmegaConf.load(kept).hydra.overrides.task) if kept.is_file() else [])
    words = list(hydra.overrides.task)
    return [word for word in words if word.partition("=")[0].lstrip("+") in keys] or words
