"""What a plan is made from beside the models: the machine, and the job that it is given.

Peak figures of a machine are its vendor's; what a program reaches of them (`mfu`), the seconds that a launch costs and
the price are assumptions, printed with every plan and meant to be overridden.
"""

import math
from dataclasses import dataclass
from typing import Literal

from mangakd.core.errors import UserError, near

Range = tuple[float, float]
Strategy = Literal["one", "ddp", "fsdp"]
Placement = Literal["live", "sharded", "cached", "api", "none"]

GB = 1e9  # vendors count in decimals; a driver reports a little more than that
STRATEGIES = ("one", "ddp", "fsdp")
PLACEMENTS = ("live", "sharded", "cached", "api", "none")
PRECISIONS = {"32-true": 4, "bf16-mixed": 2, "bf16-true": 2}  # bytes that a matrix product reads for each number
TEACHER_BYTES = {"fp32": 4.0, "bf16": 2.0, "int8": 1.0, "int4": 0.5}


@dataclass(frozen=True)
class Machine:
    """devices of memory_gb each, all of one kind. usd_per_hour: of the whole machine.

    tflops: vendor's dense peak by `fp32` and `bf16`; without a bf16 entry, bf16 runs at fp32 speed. bandwidth_gb_s:
    of a device's memory. link_gb_s: what one device sends to the others. mfu: share of the peak that matrix products
    reach, from bad to good. launch_us: host's time for one kernel, from good to bad. reserved_gb: what driver and
    libraries take. texts_per_s: what the loaders of one device deliver. accelerator: gpu | mps | cpu, as in
    conf/hardware.
    """

    name: str
    memory_gb: float
    tflops: dict[str, float]
    bandwidth_gb_s: float
    mfu: Range
    accelerator: str = "gpu"
    devices: int = 1
    strategy: Strategy = "one"
    usd_per_hour: float = 0.0
    link_gb_s: float = math.inf
    launch_us: Range = (6.0, 15.0)
    reserved_gb: float = 1.0
    texts_per_s: float = 100_000.0

    def __post_init__(self) -> None:
        _one_of("hardware strategy", self.strategy, STRATEGIES)
        if self.devices < 1 or (self.strategy == "one") != (self.devices == 1):
            raise UserError(
                f"hardware {self.name}: strategy={self.strategy} with devices={self.devices}; one device has "
                "strategy=one, several have ddp or fsdp. Set hardware.devices."
            )

    def peak(self, precision: str) -> float:
        """FLOP/s of one device."""
        return 1e12 * (self.tflops["fp32"] if precision == "32-true" else self.tflops.get("bf16", self.tflops["fp32"]))


@dataclass(frozen=True)
class Job:
    """One training. examples of `length` tokens each (mean, with padding) for `epochs`; batch: per device and
    micro-batch.

    precision: 32-true, bf16-mixed (weights stay fp32) or bf16-true (weights in bf16, AdamW keeps an fp32 master
    copy). teacher: live (a copy on each device), sharded (over them), cached or api (neither in memory), none.
    soft_targets: false where the student learns from the teacher's text alone. hidden_pairs, attention_pairs: mapped
    layers that losses compare. lora: rank over all matrices of all layers, the rest frozen in bf16 (fp32 with
    32-true); null trains everything. eval_examples: run through student and teacher after each epoch.
    """

    task: str
    examples: int
    epochs: int
    batch: int
    length: int
    accumulation: int = 1
    precision: str = "bf16-mixed"
    teacher: Placement = "live"
    teacher_dtype: str = "fp32"
    soft_targets: bool = True
    hidden_pairs: int = 0
    attention_pairs: int = 0
    lora: int | None = None
    checkpointing: bool = False
    eval_examples: int = 0

    def __post_init__(self) -> None:
        _one_of("hardware.precision", self.precision, PRECISIONS)
        _one_of("teacher placement", self.teacher, PLACEMENTS)
        _one_of("teacher dtype", self.teacher_dtype, TEACHER_BYTES)
        counts = {name: getattr(self, name) for name in ("examples", "epochs", "batch", "length", "accumulation")}
        wrong = {name: n for name, n in counts.items() if n < 1} | (
            {} if self.lora is None or self.lora > 0 else {"lora": 0}
        )
        if wrong:
            raise UserError(f"a plan for task {self.task} needs numbers above 0; found {wrong}.")

    @property
    def width(self) -> int:
        """Bytes of a number in matrix products and most activations."""
        return PRECISIONS[self.precision]

    @property
    def tokens(self) -> int:
        """Of one micro-batch on one device."""
        return self.batch * self.length

    @property
    def in_memory(self) -> bool:
        """Whether a teacher runs in this process."""
        return self.teacher in ("live", "sharded")


def _one_of(key: str, value: str, known: object) -> None:
    names = list(known)  # type: ignore[call-overload]
    if value not in names:
        raise UserError(f"{key}={value} is unknown{near(value, names)} Known: {', '.join(names)}.")
