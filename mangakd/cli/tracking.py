"""The loggers of a run, from the config; a run of a sweep is called by what it differs in and grouped by the sweep's folder."""

from typing import Any

from hydra.utils import instantiate
from omegaconf import DictConfig

from mangakd.cli.sweep import folder_of_all, own_overrides, sweeping
from mangakd.core.errors import UserError

LONGEST = 128  # characters of a name that W&B takes


def build(loggers: DictConfig) -> list[Any]:
    """Lightning's loggers. Raises UserError for one whose package is not installed."""
    objects = []
    for name in map(str, loggers):
        options = loggers[name]
        try:
            objects.append(instantiate(options, **in_sweep(options)))
        except Exception as error:
            if not isinstance(error.__cause__, ImportError):
                raise
            raise UserError(
                f"logger={name} needs a package that is not installed: pip install 'mangakd[{name}]', or leave {name} "
                "out of logger=[…]."
            ) from error
    return objects


def in_sweep(options: DictConfig) -> dict[str, str]:
    """`group` and `name` for a logger that knows both and was given neither; nothing for a run that is none of many."""
    if not sweeping():
        return {}
    place = {"group": folder_of_all().name, "name": ",".join(own_overrides())[:LONGEST]}
    return {key: value for key, value in place.items() if key in options and options[key] is None}
