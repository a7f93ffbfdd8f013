"""The command line: Hydra composes the config, a command runs it, and mistakes are told in one readable message.

Only hydra is imported here, so `--help` and `--cfg job` answer without loading torch.
"""

import importlib
import os
import re
import sys
from pathlib import Path
from typing import Any

import hydra
from hydra.errors import HydraException
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from mangakd.core.errors import UserError, near

CONF = Path(__file__).resolve().parents[2] / "conf"


def main(command: str) -> None:
    """Run `mangakd.cli.<command>.run(config)` under Hydra with conf/<command>.yaml."""
    register_resolvers()
    os.environ.setdefault("HYDRA_FULL_ERROR", "1")  # makes Hydra raise, so that the message below is ours

    def job(config: DictConfig) -> Any:
        return importlib.import_module(f"mangakd.cli.{command}").run(config)

    try:
        hydra.main(version_base="1.3", config_path=str(CONF), config_name=command)(job)()
    except KeyboardInterrupt:
        sys.exit("stopped")
    except Exception as error:
        message = explain(error)
        if message is None:
            raise
        print(f"\nerror: {message}", file=sys.stderr)
        sys.exit(getattr(error, "exit_code", 1))


def register_resolvers() -> None:
    """`${complement:x}` is 1 − x: the weight of hard labels beside alpha."""
    if not OmegaConf.has_resolver("complement"):
        OmegaConf.register_new_resolver("complement", lambda x: 1.0 - float(x))


def explain(error: BaseException) -> str | None:
    """The message for an error that the user can mend, or None for a bug, which deserves its traceback."""
    cause: BaseException | None = error
    while cause is not None:
        if isinstance(cause, UserError):
            return str(cause)
        cause = cause.__cause__
    if isinstance(error, HydraException | OmegaConfBaseException):
        return f"{str(error).strip()}{_suggestion(str(error))}"
    return None


def _suggestion(message: str) -> str:
    """Near matches for an unknown key (`distill.temprature`) or option (`task/intnt`)."""
    option = re.search(r"Could not (?:find|load) '([\w/.-]+)'", message)
    if option:
        group, _, name = option.group(1).strip("/").rpartition("/")
        known = [p.stem for p in (CONF / group).glob("*.yaml") if not p.stem.startswith("_")]
        return f"\n{group}={name} is unknown{near(name, known)}" if known else _unknown_group(option.group(1))
    group_error = re.search(r"Could not override '([\w/.@-]+)'", message)
    if group_error:
        return _unknown_key(group_error.group(1))
    return ""


def _unknown_group(name: str) -> str:
    groups = [p.name for p in CONF.iterdir() if p.is_dir()]
    return f"\n{name} is no group{near(name, groups)} python train.py --help lists them."


def _unknown_key(key: str) -> str:
    """Compares with every key of the composed default config."""
    from hydra import compose
    from hydra.core.global_hydra import GlobalHydra

    GlobalHydra.instance().clear()
    with hydra.initialize_config_dir(str(CONF), version_base="1.3"):
        config = compose("train")
    keys = [*_keys(config), *(p.name for p in CONF.iterdir() if p.is_dir())]
    return f"\n{key} is no key or group{near(key, keys)} python train.py --help lists them."


def _keys(config: DictConfig, prefix: str = "") -> list[str]:
    keys = []
    for name in map(str, config):
        keys.append(f"{prefix}{name}")
        value = config._get_node(name)
        if isinstance(value, DictConfig) and not value._is_none() and not value._is_missing():
            keys += _keys(value, f"{prefix}{name}.")
    return keys
