"""The command line: Hydra composes the config, a command runs it, and mistakes are told in one readable message.

Only hydra is imported here, so `--help` and `--cfg job` answer without loading torch.
"""

import contextlib
import errno
import importlib
import multiprocessing
import os
import re
import sys
from pathlib import Path
from typing import Any

import hydra
from hydra.core.hydra_config import HydraConfig
from hydra.errors import HydraException
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from mangakd.cli import sweep
from mangakd.cli.searchpath import unknown_option
from mangakd.core.errors import UserError, near

# What the file system says to a folder that is not ours, is no folder, or is full.
UNWRITABLE = (errno.EACCES, errno.EPERM, errno.EROFS, errno.ENOTDIR, errno.EEXIST, errno.ENOSPC, errno.EDQUOT)
TRAINING = ("train", "cache_teacher")
MULTIRUN = ("-m", "--multirun")
CONF = Path(__file__).resolve().parents[2] / "conf"


def main(command: str) -> None:
    """Run `mangakd.cli.<command>.run(config)` under Hydra with conf/<command>.yaml."""
    register_resolvers()
    os.environ.setdefault("HYDRA_FULL_ERROR", "1")  # makes Hydra raise, so that the message below is ours
    # To the front: Hydra's parser refuses it among overrides.
    sys.argv[1:] = sorted(sys.argv[1:], key=lambda word: word not in MULTIRUN)

    def job(config: DictConfig) -> Any:
        settle()
        if command in TRAINING and not (config.plan or config.validate):
            _refuse_at_once(config)
        return importlib.import_module(f"mangakd.cli.{command}").run(config)

    try:
        start = hydra.main(version_base="1.3", config_path=str(CONF), config_name=command)
        with contextlib.suppress(sweep.RunFailed):  # it has been told
            start(sweep.one_of_many(job, explain))()
        sweep.ended()
    except SystemExit:
        sweep.stopped()
        raise
    except KeyboardInterrupt:
        sweep.stopped()
        sys.exit("stopped")
    except Exception as error:
        message = explain(error)
        if message is None:
            raise
        print(f"\nerror: {message}", file=sys.stderr)
        sys.exit(1)


def settle() -> None:
    """What a process lacks that a launcher has started and sent the job to."""
    register_resolvers()
    # joblib's workers start processes in a way that ranks cannot be started in.
    if multiprocessing.get_start_method() not in (known := multiprocessing.get_all_start_methods()):
        multiprocessing.set_start_method(known[0], force=True)  # the system's own


def _refuse_at_once(config: DictConfig) -> None:
    """A profile that this machine cannot serve is told before the slow imports; preflight tells all other problems."""
    from mangakd.training.machine import not_served

    told = not_served(hydra.utils.instantiate(config.hardware), HydraConfig.get().runtime.choices["hardware"])
    if told:
        with contextlib.suppress(OSError):
            Path(HydraConfig.get().runtime.output_dir).rmdir()
        raise UserError(told)


def register_resolvers() -> None:
    """`${complement:x}` is 1 − x: the weight of hard labels beside alpha."""
    if not OmegaConf.has_resolver("complement"):
        OmegaConf.register_new_resolver("complement", lambda x: round(1.0 - float(x), 12))


def explain(error: BaseException) -> str | None:
    """The message for an error that the user can mend, or None for a bug, which deserves its traceback."""
    cause: BaseException | None = error
    while cause is not None:
        if isinstance(cause, UserError):
            return str(cause)
        cause = cause.__cause__
    if isinstance(error, HydraException | OmegaConfBaseException):
        return _suggestion(str(error)) or str(error).strip()
    if isinstance(error, ValueError) and "group override must be a string or a list" in str(error):
        return "a group cannot be null; leave it out with ~, for example ~models or ~debug."
    if isinstance(error, OSError) and error.errno in UNWRITABLE and error.filename:
        return (
            f"{error.filename} cannot be written: {error.strerror}. Runs go to hydra.run.dir (sweeps: hydra.sweep.dir), "
            "fine-tuned teachers, tokens and stores to paths.cache; set the one that is meant to a folder of yours."
        )
    return None


def _suggestion(message: str) -> str:
    """Near matches for an unknown key (`distill.temprature`) or option (`task/intnt`); empty for other messages.

    Instead of Hydra's words, which advise to append a misspelt key and list search paths.
    """
    option = re.search(r"Could not (?:find|load) '([\w/.-]+)'", message)
    if option:
        return unknown_option(option.group(1), message)
    key = re.search(r"Could not override '([\w/.@-]+)'", message)
    if not key:
        return ""
    if re.fullmatch(r"stages\.[\w-]+\.\w+", key.group(1)):
        return (
            f"{key.group(1)} is not in the recipe: it leaves this entry out, or has no such stage (--cfg job shows its stages). "
            f"+{key.group(1)}=… adds the entry; docs/recipes.md lists them."
        )
    if (group := CONF / key.group(1)).is_dir():
        options = sorted(file.stem for file in group.glob("[!_]*.yaml"))
        return (
            f"{group.name} is a group and takes one of its options ({', '.join(options)}), no values of its own: "
            f"{group.name}.<key>=… changes a key of the option, +{group.name}.<key>=… adds one."
        )
    return _unknown_key(key.group(1))


def _unknown_key(key: str) -> str:
    """Compares with every key of the composed default configs: this command's, and the largest."""
    from hydra import compose
    from hydra.core.global_hydra import GlobalHydra

    GlobalHydra.instance().clear()
    with hydra.initialize_config_dir(str(CONF), version_base="1.3"):
        commands = [name for name in (Path(sys.argv[0]).stem, "plan") if (CONF / f"{name}.yaml").is_file()]
        configs = [compose(name) for name in commands]
    known = [key for config in configs for key in _keys(config)]
    keys = list(dict.fromkeys([*known, *(p.name for p in CONF.iterdir() if p.is_dir())]))
    # `lr` is too far from `optim.lr` for difflib, yet it is what people type.
    within = [known for known in keys if known.rpartition(".")[2] == key.rpartition(".")[2]]
    hint = f"; did you mean {', '.join(within[:3])}?" if within else near(key, keys)
    return f"{key} is no key or group{hint} python train.py --help lists them."


def _keys(config: DictConfig, prefix: str = "") -> list[str]:
    keys = []
    for name in map(str, config):
        keys.append(f"{prefix}{name}")
        value = config._get_node(name)
        if isinstance(value, DictConfig) and not value._is_none() and not value._is_missing():
            keys += _keys(value, f"{prefix}{name}.")
    return keys
