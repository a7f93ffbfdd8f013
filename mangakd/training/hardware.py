"""`Hardware`: a profile of conf/hardware, with derived values such as the number of processes.

A profile sets the devices of a run and the rows of a forward pass. Training depends only on `step`, what one optimizer step
holds: devices × nodes × accumulate batches of batch_size rows, or of at most tokens_per_batch tokens with padding.
"""

from dataclasses import dataclass, field, replace
from typing import Any

import torch

from mangakd.core import cpu, ranks
from mangakd.data.steps import RowSteps, StepSize, TokenSteps

STRATEGIES = ("one", "ddp", "fsdp")
PLACEMENTS = ("replicated", "sharded", "cached")
DTYPES = ("auto", "float32", "bfloat16", "float16")
PRECISIONS = ("auto", "32-true", "bf16-mixed", "16-mixed", "bf16-true")
ATTENTION = ("sdpa", "eager", "flash_attention_2")


@dataclass(frozen=True)
class TeacherPlace:
    """placement: replicated on every device, sharded over the devices (fsdp), or cached (the teacher is not in memory).

    dtype: of the teacher's weights; auto is the checkpoint's dtype.
    """

    placement: str = "replicated"
    dtype: str = "auto"

    def weights(self, checkpoint: torch.dtype = torch.float32) -> torch.dtype:
        """The dtype of a teacher's weights. checkpoint: the dtype of the checkpoint."""
        dtype: torch.dtype = checkpoint if self.dtype == "auto" else getattr(torch, self.dtype)
        return dtype


@dataclass(frozen=True)
class Hardware:
    """devices: on each node. batch_size: rows of one device in one forward pass. accumulate: passes of an optimizer step.
    tokens_per_batch: the most tokens of one device in one forward pass, with padding, in place of batch_size.

    precision: `auto` becomes bf16-mixed on a CPU with bf16 units, and 32-true elsewhere.
    tasks: batch_size, accumulate, max_length, eval_batch_size and teacher for each kind of head; the profile's values come from
    here. activation_checkpointing: see training/recompute.py. fallback: the task's numbers, where the profile sets none for its
    kind. machine: figures for planning only.
    """

    accelerator: str = "auto"
    devices: int = 1
    nodes: int = 1
    strategy: str = "one"
    precision: str = "32-true"
    batch_size: int = 64
    accumulate: int = 1
    tokens_per_batch: int | None = None
    max_length: int = 128
    eval_batch_size: int = 128
    workers: int = 0
    pin_memory: bool = False
    compile: bool = False
    attention: str = "sdpa"
    packing: bool = False
    activation_checkpointing: bool = False
    teacher: TeacherPlace = TeacherPlace()
    tasks: Any = field(default=None, repr=False)
    fallback: Any = field(default=None, repr=False)
    machine: Any = field(default=None, repr=False)

    def __post_init__(self) -> None:
        if not isinstance(self.teacher, TeacherPlace):
            object.__setattr__(self, "teacher", TeacherPlace(**self.teacher))
        if self.precision == "auto":
            fast = self.kind == "cpu" and cpu.native_bf16()
            object.__setattr__(self, "precision", "bf16-mixed" if fast else "32-true")

    @property
    def world(self) -> int:
        """Processes of a run, one for each device."""
        return self.devices * self.nodes

    @property
    def step(self) -> StepSize:
        """What an optimizer step holds on all devices."""
        batches = self.world * self.accumulate
        if self.tokens_per_batch is None:
            return RowSteps(batches * self.batch_size)
        return TokenSteps(self.tokens_per_batch, batches)

    def most(self, length: int) -> int:
        """The rows of a forward pass on one device whose longest row has `length` tokens."""
        return self.batch_size if self.tokens_per_batch is None else max(self.tokens_per_batch // length, 1)

    @property
    def alone(self) -> "Hardware":
        """The profile for one device, with the same steps."""
        return replace(self, devices=1, nodes=1, strategy="one", accumulate=self.accumulate * self.world)

    @property
    def frozen(self) -> torch.dtype:
        """The dtype of weights under adapters: that of the arithmetic, except fp16, in which large numbers overflow."""
        return torch.bfloat16 if self.precision.startswith("bf16") else torch.float32

    @property
    def kind(self) -> str:
        """cuda | mps | cpu."""
        if self.accelerator == "auto":
            return "cuda" if torch.cuda.is_available() else "mps" if torch.backends.mps.is_available() else "cpu"
        return "cuda" if self.accelerator == "gpu" else self.accelerator

    @property
    def device(self) -> torch.device:
        """Where this process predicts outside a fit."""
        return torch.device(self.kind, ranks.local_rank()) if self.kind == "cuda" else torch.device(self.kind)

    @property
    def backend(self) -> str:
        """The backend of torch.distributed."""
        return "nccl" if self.kind == "cuda" else "gloo"
