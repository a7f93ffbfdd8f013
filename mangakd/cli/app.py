"""The command line: Hydra composes the config, a command runs it, and mistakes are told in one readable message.

Only hydra is imported here, so `--help` and `--cfg job` answer without loading torch.
"""

import contextlib
import errno
import importlib
import multiprocessing
import os
import sys
from pathlib import Path
from typing import Any

import hydra
from hydra.core.hydra_config import HydraConfig
from hydra.core.utils import JobReturn, JobStatus
from hydra.errors import HydraException
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from mangakd.cli import sweep
from mangakd.cli.grammar import check_line
from mangakd.cli.mistakes import explained
from mangakd.cli.searchpath import CONF
from mangakd.core.errors import UserError
from mangakd.core.invocation import command as typed

# What the file system says to a folder that is not ours, is no folder, or is full.
UNWRITABLE = (errno.EACCES, errno.EPERM, errno.EROFS, errno.ENOTDIR, errno.EEXIST, errno.ENOSPC, errno.EDQUOT)
TRAINING = ("train", "cache_teacher")
MULTIRUN = ("-m", "--multirun")


def main(command: str) -> None:
    """Run `mangakd.cli.<command>.run(config)` under Hydra with conf/<command>.yaml."""
    register_resolvers()
    # Makes Hydra raise, whatever the user's environment says, so that the message below is ours and the only one.
    os.environ["HYDRA_FULL_ERROR"] = "1"
    JobReturn.return_value = property(_value, JobReturn.return_value.fset)  # type: ignore[assignment, attr-defined, method-assign]
    # To the front: Hydra's parser refuses it among overrides.
    sys.argv[1:] = sorted(sys.argv[1:], key=lambda word: word not in MULTIRUN)

    def job(config: DictConfig) -> Any:
        settle()
        if command in TRAINING and not (config.plan or config.validate):
            _refuse_at_once(config)
        return importlib.import_module(f"mangakd.cli.{command}").run(config)

    try:
        check_line(sys.argv[1:])
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
        message = explain(error, command)
        if message is None:
            raise
        print(f"\nerror: {message}", file=sys.stderr)
        sys.exit(1)


def _value(job: JobReturn) -> Any:
    """Hydra's, without its line "Error executing job with overrides" before the error that it raises."""
    if job.status == JobStatus.FAILED:
        raise job._return_value
    return job._return_value


def settle() -> None:
    """What a process lacks that a launcher has started and sent the job to."""
    register_resolvers()
    # joblib's workers start processes in a way that loader workers and ranks cannot be started in.
    if multiprocessing.get_start_method() not in (methods := multiprocessing.get_all_start_methods()):
        multiprocessing.set_start_method(methods[0], force=True)  # the system's own


def _refuse_at_once(config: DictConfig) -> None:
    """A profile that this machine cannot serve is told before the slow imports; preflight tells all other problems."""
    from mangakd.training.machine import missing_devices

    problem = missing_devices(hydra.utils.instantiate(config.hardware), HydraConfig.get().runtime.choices["hardware"])
    if problem:
        with contextlib.suppress(OSError):
            Path(HydraConfig.get().runtime.output_dir).rmdir()
        raise UserError(problem)


def register_resolvers() -> None:
    """`${complement:x}` is 1 − x: the weight of hard labels beside alpha. `${command:train}` is what starts it.

    `${direction:${task}}` is Optuna's word for the better direction of the task's monitor.
    """
    if not OmegaConf.has_resolver("complement"):
        OmegaConf.register_new_resolver("complement", lambda x: round(1.0 - float(x), 12))
        OmegaConf.register_new_resolver("command", typed)
        OmegaConf.register_new_resolver("direction", _direction)


def _direction(task: DictConfig) -> str:
    from mangakd.cli import judges  # numpy, which --help does without

    return judges.of_task(task).score(task.monitor).direction


def explain(error: BaseException, name: str = "train") -> str | None:
    """The message for an error that the user can mend, or None for a bug, which deserves its traceback.

    name: of the command.
    """
    cause: BaseException | None = error
    while cause is not None:
        if isinstance(cause, UserError):
            return str(cause)
        cause = cause.__cause__
    if isinstance(error, HydraException | OmegaConfBaseException):
        return explained(error, name)
    if isinstance(error, ValueError) and _raised_by_hydra(error):
        if "group override must be a string or a list" in str(error):
            return "a group cannot be null; leave it out with ~, for example ~models or ~debug."
        return str(error)
    if isinstance(error, OSError) and error.errno in UNWRITABLE and error.filename:
        return (
            f"{error.filename} cannot be written: {error.strerror}. Runs go to hydra.run.dir (sweeps: hydra.sweep.dir), "
            "fine-tuned teachers, tokens and stores to paths.cache; set the one that is meant to a folder of yours."
        )
    return None


def _raised_by_hydra(error: BaseException) -> bool:
    trace = error.__traceback__
    while trace is not None and trace.tb_next is not None:
        trace = trace.tb_next
    return trace is not None and str(trace.tb_frame.f_globals.get("__name__")).startswith("hydra.")
