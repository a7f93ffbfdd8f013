"""`python scripts/plan.py`, and `plan=true` on a command that trains: memory, time and price of a run before it starts.

The hardware profile says on what. `workload` says what: a run by sizes alone (conf/workload), for which neither models nor
data are there, or, where it is empty (workload=run, plan=true), the run as configured, whose models' configs and data are
read. Nothing is trained and no folder is left but the kept tokens in paths.cache.
"""

import copy
import logging
import math
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

from hydra import compose
from hydra.core.hydra_config import HydraConfig
from hydra.utils import instantiate
from omegaconf import DictConfig, OmegaConf

from mangakd.cli.logs import start_logging
from mangakd.cli.searchpath import CONF
from mangakd.cli.setup import Setup
from mangakd.cli.typed import typed_words
from mangakd.cli.values import wrong_values
from mangakd.core.errors import UserError
from mangakd.data.sampler import BucketSampler, Share
from mangakd.models import heads
from mangakd.planning import table, this_machine
from mangakd.planning.job import TEACHER_BYTES, Job, Machine, Placement
from mangakd.planning.plan import Estimate, estimate
from mangakd.planning.sizes import Model
from mangakd.planning.workload import Workload
from mangakd.teachers.cached import Cached

NOT_COMPARED = ("auto", "cpu_ddp", "cpu_fsdp")  # this machine, and rehearsals
READ_BY_SIZES = ("task", "workload", "hardware", "compare")
log = logging.getLogger(__name__)


def run(config: DictConfig) -> None:
    """Print one plan in full, or all profiles side by side."""
    start_logging(None)
    if config.workload:
        _warn_unread()
    print(compared(config) if config.compare else planned(Setup(config, Path())))


def planned(setup: Setup) -> str:
    """The plan of the workload, or of the run itself where the config has none. Raises UserError where there is none."""
    plan = estimated(setup, HydraConfig.get().runtime.choices["hardware"])
    return "\n".join([table.one(plan), *_stages(setup), *_baseline(setup, plan)])


def compared(config: DictConfig) -> str:
    """The same overrides on every hardware profile that has figures of its own."""
    typed = [word for word in typed_words() if word.partition("=")[0] not in ("hardware", "compare")]
    setups = {name: Setup(compose("plan", [*typed, f"hardware={name}"]), Path()) for name in profiles()}
    return table.compare([estimated(setup, name) for name, setup in setups.items()])


def profiles() -> list[str]:
    return [name for name in _options("hardware") if name not in NOT_COMPARED]


def estimated(setup: Setup, hardware: str) -> Estimate:
    """hardware: the profile's name."""
    if wrong := list(wrong_values(setup.config)):
        raise UserError("\n- ".join(["this cannot be planned:", *wrong]))
    machine = _machine(setup, hardware)
    if setup.config.get("workload"):
        return _by_sizes(setup, machine)
    return estimate(*_models(setup), machine, _job(setup, machine))


def _machine(setup: Setup, name: str) -> Machine:
    hardware, figures = setup.hardware, setup.config.hardware.machine
    if figures is None:
        known = {profile: _option("hardware", profile)["machine"] for profile in profiles()}
        figures = this_machine.figures(hardware.kind, hardware.devices, known)
        name = f"{name}: this machine"
    elif OmegaConf.is_config(figures):
        figures = OmegaConf.to_container(figures, resolve=True)
    accelerator = "gpu" if hardware.kind == "cuda" else hardware.kind
    return Machine.of(name, figures, accelerator=accelerator, devices=hardware.world, strategy=hardware.strategy)


def _by_sizes(setup: Setup, machine: Machine) -> Estimate:
    chosen, config = HydraConfig.get().runtime.choices, setup.config
    workload: Workload = instantiate(config.workload, _convert_="all")
    if workload.kind != config.task.kind:
        fitting = [name for name in _options("task") if _option("task", name)["kind"] == workload.kind]
        raise UserError(
            f"workload={chosen['workload']} has a head of {workload.kind}, task={chosen['task']} one of "
            f"{config.task.kind}, whose batches are others. Choose task={' or task='.join(fitting)}."
        )
    return estimate(*workload.models(), machine, workload.job(chosen["workload"], **_spread(setup, machine)))


def _warn_unread() -> None:
    """Overrides that would change a training and do not change the plan of a workload."""
    typed = [word.lstrip("+~").partition("=")[0] for word in typed_words()]
    unread = [key for key in typed if key.split(".")[0] not in READ_BY_SIZES]
    if unread:
        chosen = HydraConfig.get().runtime.choices["workload"]
        log.warning("%s: not read by workload=%s; workload=run plans the run as configured.", ", ".join(unread), chosen)


def _spread(setup: Setup, machine: Machine) -> dict[str, Any]:
    hardware, precision = setup.hardware, setup.hardware.precision
    if setup.config.hardware.precision == "auto" and hardware.kind == "cpu":  # of the planned CPU, not of this one
        precision = "bf16-mixed" if "bf16" in machine.tflops else "32-true"
    return {"batch": hardware.batch_size, "accumulation": hardware.accumulate, "precision": precision}


def _models(setup: Setup) -> tuple[Model, Model]:
    """Student and teacher with the task's head; an ensemble counts all its members."""

    def model(shape: Any, key: str) -> Model:
        config = copy.deepcopy(shape.config)
        config.update(heads.entries(setup.head))
        return Model.from_config(config, config.model_type, setup.head.kind, key)

    student = model(setup.student_shape, "student.path" if setup.student.path else "student.sizes")
    return student, model(setup.teacher_shape, "teacher.path").times(len(setup.teacher.models))


def _job(setup: Setup, machine: Machine) -> Job:
    """The training of this run."""
    losses = setup.losses
    compared = [loss.requires.teacher for loss in losses.callbacks.values()]
    mean, longest = _padded(setup)
    return Job(
        f"{setup.task.name} as configured",
        len(setup.corpus.train),
        setup.config.trainer.max_epochs,
        length=mean,
        longest=longest,
        teacher=_placement(setup),
        teacher_dtype=_teacher_dtype(setup),
        soft_targets=losses.requires.teacher.logits,
        hidden_pairs=sum(len(need.hidden) for need in compared),
        attention_pairs=sum(len(need.attention) for need in compared),
        eval_examples=len(setup.corpus.validation),
        **_spread(setup, machine),
    )


def _teacher_dtype(setup: Setup) -> str:
    """The profile's; with auto, the one that the teacher's config.json gives."""
    dtype = setup.hardware.teacher.dtype
    if dtype == "auto":
        dtype = str(setup.teacher_config.dtype).removeprefix("torch.")
    return dtype if dtype in TEACHER_BYTES else "float32"


def _placement(setup: Setup) -> Placement:
    if not setup.losses.needs_teacher:
        return "none"
    return "cached" if isinstance(setup.teacher, Cached) else cast(Placement, setup.hardware.teacher.placement)


def _padded(setup: Setup) -> tuple[int, int]:
    """Tokens of a text in training batches: on average, padding included, and in the longest."""
    lengths, hardware = setup.splits["train"].student.lengths, setup.hardware
    share = Share(0, hardware.world, hardware.accumulate)
    batches = BucketSampler(lengths, hardware.step_rows, setup.config.seed, {}, share)
    rows = [lengths[micro.rows] for micro in batches]
    return math.ceil(sum(len(row) * row.max() for row in rows) / sum(map(len, rows))), int(lengths.max())


def _stages(setup: Setup) -> list[str]:
    """A plan is of one fit."""
    if setup.config.get("workload") or len(setup.stages) == 1:
        return []
    names = ", ".join(stage.name for stage in setup.stages)
    return ["", f"planned is one stage of trainer.max_epochs on the labelled texts; the recipe has {names}"]


def _baseline(setup: Setup, plan: Estimate) -> list[str]:
    """`baseline=true` trains the student a second time."""
    if setup.config.get("workload") or not setup.config.baseline:
        return []
    alone = replace(plan.job, teacher="none", soft_targets=False, hidden_pairs=0, attention_pairs=0)
    total = estimate(plan.student, None, plan.machine, alone).total
    return [
        "",
        f"baseline=true, the same student without a teacher, takes another {table.between(total, table.duration)}",
    ]


def _options(group: str) -> list[str]:
    return sorted(file.stem for file in (CONF / group).glob("*.yaml") if not file.stem.startswith("_"))


def _option(group: str, name: str) -> Any:
    return OmegaConf.to_container(compose("train", [f"{group}={name}"])[group])
