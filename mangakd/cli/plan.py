"""`python scripts/plan.py`, and `plan=true` on a command that trains: memory, time and price of a run before it starts.

The hardware profile says on what. `workload` says what: a run by sizes alone (conf/workload), for which neither models nor
data are there, or, where it is empty (workload=run, plan=true), the run as configured, whose models' configs and data are
read. Nothing is trained and no folder is left but the kept tokens in paths.cache.
"""

import logging
from pathlib import Path
from typing import Any

from hydra import compose
from hydra.core.hydra_config import HydraConfig
from hydra.utils import instantiate
from omegaconf import DictConfig, OmegaConf

from mangakd.cli import plan_costs
from mangakd.cli.given import run_of
from mangakd.cli.logs import start_logging
from mangakd.cli.searchpath import CONF
from mangakd.cli.typed import typed_words
from mangakd.cli.values import wrong_values
from mangakd.core.errors import UserError, near
from mangakd.planning import index, table, this_machine
from mangakd.planning.job import Machine
from mangakd.planning.plan import Estimate, estimate
from mangakd.planning.workload import Workload
from mangakd.runs import plan as of_run
from mangakd.runs.run import Run
from mangakd.training.hardware import Hardware

NOT_COMPARED = ("auto", "cpu_ddp", "cpu_fsdp")  # this machine, and rehearsals
READ_BY_SIZES = ("task", "workload", "hardware", "compare", "traffic_per_day", "costs", "prices")
log = logging.getLogger(__name__)


def run(config: DictConfig) -> None:
    """Print one plan in full, or all profiles side by side."""
    start_logging(None)
    if config.workload:
        _warn_unread()
    if config.compare and config.traffic_per_day is not None:
        log.warning("traffic_per_day is not read by --compare; plan one hardware profile.")
    print(compared(config) if config.compare else plan_of(config, run_of(config, Path())))


def plan_of(config: DictConfig, run: Run) -> str:
    """The plan of the workload, or of the run itself where the config has none. Raises UserError where there is none."""
    write_costs = plan_costs.writer(config, _figures)
    plan = estimated(config, run)
    remarks: list[str] = []
    if not config.get("workload"):
        remarks = of_run.remarks(plan, run.parts.stages, run.given.baseline, run.parts.on_policy.share)
        remarks = [*remarks, *of_run.store(run), *of_run.token_index(run, plan)]
    if config.task.kind == "vector":
        remarks += ["", *index.lines(plan.student.outputs, config.task.get("dims") or ())]
    return "\n".join([table.one(plan), *remarks, *write_costs(plan)])


def compared(config: DictConfig) -> str:
    """The same overrides on every hardware profile that has figures of its own."""
    typed = [word for word in typed_words() if word.partition("=")[0] not in ("hardware", "compare")]
    configs = {name: compose("plan", [*typed, f"hardware={name}"]) for name in profiles()}
    return table.compare([estimated(each, run_of(each, Path(), name)) for name, each in configs.items()])


def profiles() -> list[str]:
    return [name for name in _options("hardware") if name not in NOT_COMPARED]


def estimated(config: DictConfig, run: Run) -> Estimate:
    if wrong := list(wrong_values(config)):
        raise UserError("\n- ".join(["this cannot be planned:", *wrong]))
    hardware = run.parts.hardware
    machine = _machine(hardware, run.given.settings("hardware.machine"), run.given.profile)
    if config.get("workload"):
        return _by_sizes(config, hardware, machine)
    return of_run.estimated(run, machine)


def _figures(profile: str) -> Any:
    if profile not in profiles():
        raise UserError(f"costs.hardware={profile} is no profile with figures{near(profile, profiles())}")
    return _option("hardware", profile)["machine"]


def _machine(hardware: Hardware, figures: Any, name: str) -> Machine:
    """figures: of the profile; None for this machine's own. name: of the profile."""
    if figures is None:
        machines = {profile: _option("hardware", profile)["machine"] for profile in profiles()}
        figures = this_machine.figures(hardware.kind, hardware.devices, machines)
        name = f"{name}: this machine"
    accelerator = "gpu" if hardware.kind == "cuda" else hardware.kind
    return Machine.of(name, figures, accelerator=accelerator, devices=hardware.world, strategy=hardware.strategy)


def _by_sizes(config: DictConfig, hardware: Hardware, machine: Machine) -> Estimate:
    choices = HydraConfig.get().runtime.choices
    workload: Workload = instantiate(config.workload, _convert_="all")
    if workload.kind != config.task.kind:
        fitting = [name for name in _options("task") if _option("task", name)["kind"] == workload.kind]
        raise UserError(
            f"workload={choices['workload']} has a head of {workload.kind}, task={choices['task']} one of "
            f"{config.task.kind}, whose batches are others. Choose task={' or task='.join(fitting)}."
        )
    batches = of_run.batches(hardware, config.hardware.precision, machine)
    return estimate(*workload.models(), machine, workload.job(choices["workload"], **batches))


def _warn_unread() -> None:
    """Overrides that would change a training and do not change the plan of a workload."""
    typed = [word.lstrip("+~").partition("=")[0] for word in typed_words()]
    unread = [key for key in typed if key.split(".")[0] not in READ_BY_SIZES]
    if unread:
        name = HydraConfig.get().runtime.choices["workload"]
        log.warning("%s: not read by workload=%s; workload=run plans the run as configured.", ", ".join(unread), name)


def _options(group: str) -> list[str]:
    return sorted(file.stem for file in (CONF / group).glob("*.yaml") if not file.stem.startswith("_"))


def _option(group: str, name: str) -> Any:
    return OmegaConf.to_container(compose("train", [f"{group}={name}"])[group])
