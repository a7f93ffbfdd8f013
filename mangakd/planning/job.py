"""What a plan is made from beside the models: the machine, and the job that it is given.

Peak figures of a machine are its vendor's; what a program reaches of them (`mfu`), the seconds that a launch costs and
the price are assumptions, printed with every plan and meant to be overridden.
"""

import math
from collections.abc import Mapping
from dataclasses import MISSING, dataclass, fields
from typing import Any, Literal

from mangakd.core.errors import UserError, near

Range = tuple[float, float]
Strategy = Literal["one", "ddp", "fsdp"]
Placement = Literal["replicated", "sharded", "cached", "api", "none"]

SPREAD = ("accelerator", "devices", "strategy")  # of a machine, and no figures
GB = 1e9  # vendors count in decimals; a driver reports a little more than that
ACCELERATORS = ("gpu", "mps", "cpu")
STRATEGIES = ("one", "ddp", "fsdp")
PLACEMENTS = ("replicated", "sharded", "cached", "api", "none")
PEAKS = {"fp32", "bf16"}
PAIRS = ("mfu", "launch_us")
MAY_BE_ZERO = ("usd_per_hour", "launch_us", "reserved_gb")
# Bytes that a matrix product reads for each number.
PRECISIONS = {"32-true": 4, "bf16-mixed": 2, "16-mixed": 2, "bf16-true": 2}
TEACHER_BYTES = {"float32": 4.0, "bfloat16": 2.0, "float16": 2.0}


@dataclass(frozen=True)
class Machine:
    """Devices of one kind; each figure is of one device.

    tflops: vendor's dense peak by `fp32` and `bf16` (fp16 is as fast); without a bf16 entry, both run at fp32 speed.
    bandwidth_gb_s: of its memory. link_gb_s: what it sends to the others. mfu: share of the peak that matrix products
    reach, from bad to good. launch_us: host's time for one kernel, from good to bad. reserved_gb: what driver and
    libraries take. texts_per_s: what its loaders deliver. accelerator: gpu | mps | cpu, as in conf/hardware.
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
    launch_us: Range = (6.0, 45.0)
    reserved_gb: float = 1.0
    texts_per_s: float = 100_000.0

    def __post_init__(self) -> None:
        one_of("hardware.accelerator", self.accelerator, ACCELERATORS)
        one_of("hardware.strategy", self.strategy, STRATEGIES)
        if self.devices < 1 or (self.strategy == "one") != (self.devices == 1):
            raise UserError(
                f"hardware {self.name}: strategy={self.strategy} with devices={self.devices}; one device has "
                "strategy=one, several have ddp or fsdp. Set hardware.devices or hardware.strategy."
            )

    @classmethod
    def of(cls, name: str, figures: Mapping[str, Any], **spread: Any) -> "Machine":
        """From the `machine:` block of a hardware profile; `spread` is what the profile says elsewhere.

        Raises UserError for a figure that is unknown, missing or no number.
        """
        if not isinstance(figures, Mapping):
            raise UserError(f"hardware.machine={figures} must be null (this machine) or figures by name.")
        choices = {field.name: field.default for field in fields(cls) if field.name not in ("name", *SPREAD)}
        for figure in figures:
            if figure not in choices:
                raise UserError(
                    f"hardware.machine.{figure} is unknown{near(str(figure), choices)} Known: {', '.join(choices)}."
                )
        missing = [figure for figure, default in choices.items() if default is MISSING and figures.get(figure) is None]
        if missing:
            raise UserError(f"hardware={name} lacks figures for a plan: hardware.machine.{', '.join(missing)}.")
        return cls(name, **{figure: _check(figure, value) for figure, value in figures.items()}, **spread)

    @property
    def hourly(self) -> float:
        """USD of all devices."""
        return self.devices * self.usd_per_hour

    def peak(self, precision: str) -> float:
        """FLOP/s of one device."""
        return 1e12 * (self.tflops["fp32"] if precision == "32-true" else self.tflops.get("bf16", self.tflops["fp32"]))


@dataclass(frozen=True)
class Job:
    """One training. examples of `length` tokens each (mean, with padding) for `epochs`; batch: per device and
    micro-batch.

    longest: tokens of the longest batch, which memory must hold, where it is above `length`. budget: the most tokens of a batch
    with padding, where batches are filled with tokens; `batch` is then their mean. precision: 32-true,
    bf16-mixed and 16-mixed (weights stay fp32) or bf16-true (weights in bf16, AdamW keeps an fp32 master copy).
    teacher: replicated (a copy on each device), sharded (over them), cached or api (neither in memory), none.
    soft_targets: false where the student learns from the teacher's text alone. hidden_pairs, attention_pairs: mapped
    layers that losses compare. lora: rank of adapters, the rest frozen in bf16 (fp32 with 32-true and 16-mixed, matrices
    in 4 bits with four_bit); null trains everything. eval_examples: run through student and teacher after each epoch.
    teacher_length: tokens of an example as the teacher reads it; 0: `length`. student_queries, teacher_queries: texts of
    `query_length` tokens that a model of late interaction reads beside each example. mined: texts that the teacher reads
    once, before the training. target: how many tokens of `length` a decoder reads, apart from the encoder's; longest_target: of
    the longest batch.
    """

    name: str
    examples: int
    epochs: int
    batch: int
    length: int
    longest: int = 0
    budget: int = 0
    accumulation: int = 1
    precision: str = "bf16-mixed"
    teacher: Placement = "replicated"
    teacher_dtype: str = "float32"
    soft_targets: bool = True
    hidden_pairs: int = 0
    attention_pairs: int = 0
    lora: int | None = None
    four_bit: bool = False
    checkpointing: bool = False
    eval_examples: int = 0
    teacher_length: int = 0
    query_length: int = 0
    student_queries: float = 0.0
    teacher_queries: float = 0.0
    mined: int = 0
    target: int = 0
    longest_target: int = 0

    def __post_init__(self) -> None:
        one_of("hardware.precision", self.precision, PRECISIONS)
        one_of("teacher placement", self.teacher, PLACEMENTS)
        one_of("teacher dtype", self.teacher_dtype, TEACHER_BYTES)
        counts = {name: getattr(self, name) for name in ("examples", "epochs", "batch", "length", "accumulation")}
        if self.lora is not None:
            counts["lora"] = self.lora
        wrong = {name: n for name, n in counts.items() if not isinstance(n, int) or n < 1}
        if wrong:
            raise UserError(f"a plan for {self.name} needs whole numbers above 0; found {wrong}.")

    @property
    def width(self) -> int:
        """Bytes of a number in matrix products and most activations."""
        return PRECISIONS[self.precision]

    @property
    def mixed(self) -> bool:
        """Whether autocast makes copies in 16 bits of weights in 32."""
        return self.precision.endswith("-mixed")

    @property
    def tokens(self) -> int:
        """Of one micro-batch on one device, as the student reads it."""
        return self.batch * self.length + math.ceil(self.batch * self.student_queries * self.query_length)

    @property
    def targets(self) -> int:
        """Of these tokens, those that a decoder reads."""
        return self.batch * self.target

    @property
    def in_memory(self) -> bool:
        """Whether a teacher runs in this process."""
        return self.teacher in ("replicated", "sharded")


def _check(figure: str, value: Any) -> Any:
    """A number, a pair of them (bad and good end), or the peaks by precision."""
    if figure == "tflops":
        words, good = "{fp32: …} or {fp32: …, bf16: …}", isinstance(value, Mapping) and {"fp32"} <= {*value} <= PEAKS
        numbers = [*value.values()] if good else []
    elif figure in PAIRS:
        words, good = "[…, …]", isinstance(value, list | tuple) and len(value) == 2
        numbers = [*value] if good else []
    else:
        words, good, numbers = "a number", True, [value]
    low = 0 if figure in MAY_BE_ZERO else math.ulp(0.0)
    if not good or not all(isinstance(number, int | float) and number >= low for number in numbers):
        least = "from 0 on" if low == 0 else "above 0"
        raise UserError(f"hardware.machine.{figure} must be {words} {least}; found {value}.")
    return tuple(value) if figure in PAIRS else value


def one_of(key: str, value: str, choices: object) -> None:
    names = list(choices)  # type: ignore[call-overload]
    if value not in names:
        raise UserError(f"{key}={value} is unknown{near(value, names)} Known: {', '.join(names)}.")
