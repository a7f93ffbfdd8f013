"""`RunModule`: the DistillModule of the command's fits. Adds the task's validation scores, shards and named checkpoints."""

import logging
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from mangakd.core import ranks
from mangakd.core.outputs import Batch
from mangakd.data.steps import StepSize
from mangakd.losses.loss_set import LossSet
from mangakd.models.encoder import Encoder
from mangakd.teachers.base import TeacherProvider
from mangakd.training import checkpoints, parallel
from mangakd.training.checkpoints import Identity
from mangakd.training.hardware import Hardware
from mangakd.training.module import DistillModule
from mangakd.training.on_policy import OwnTexts
from mangakd.training.optim import Optim
from mangakd.training.validation import Validation

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Step:
    """The optimizer's steps. count: in the whole fit. size: of a step on all ranks. accumulate: micro-batches on this rank."""

    count: int
    size: StepSize
    accumulate: int = 1


class RunModule(DistillModule):
    """losses: already bound. identity: the inputs of the fit, saved in its checkpoints. own_texts: of a student that writes."""

    def __init__(
        self, student: Encoder, losses: LossSet, teacher: TeacherProvider | None, optim: Optim,
        validation: Validation, step: Step, seed: int = 0, hardware: Hardware | None = None, identity: Identity | None = None,
        own_texts: OwnTexts | None = None,
    ) -> None:  # fmt: skip
        super().__init__(student, teacher, losses, optim=optim, seed=seed)
        self._validation, self._step, self._own_texts = validation, step, own_texts
        self._hardware, self._identity = hardware or Hardware(), identity or Identity()
        if self._norms is not None and not _whole(self._hardware):
            self._norms = None
        self.strict_loading = student.adapters is None  # a checkpoint of adapters lacks the frozen weights under them

    @property
    def steps(self) -> int:  # type: ignore[override]
        return self._step.count

    @property
    def accumulate(self) -> int:
        return self._step.accumulate

    @property
    def rank(self) -> int:
        return ranks.rank() if self._hardware.world > 1 else 0  # a fit on one device may run on one of many ranks

    def configure_model(self) -> None:
        if self._hardware.strategy != "fsdp":
            return
        mesh = self.device_mesh["data_parallel"]  # type: ignore[index]
        parallel.shard(self, self.student, self.losses, mesh, self._hardware.precision)
        if self.teacher is not None and self._hardware.teacher.placement == "sharded":
            for encoder in self.teacher.encoders:
                parallel.shard_encoder(encoder, mesh)

    def training_step(self, batch: Batch, batch_idx: int) -> Tensor:
        if self._own_texts is not None:
            batch = self._own_texts(self.student, batch, self.global_step, self._sum)
        return super().training_step(batch, batch_idx)

    def _sum(self, value: Tensor) -> Tensor:
        """The sum over ranks."""
        return self.trainer.strategy.reduce(value, reduce_op="sum")  # type: ignore[return-value]

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Rescale Lightning's count of micro-batches: a step has another number of micro-batches on other devices."""
        before, now = checkpoint[checkpoints.KEY]["accumulate"], self._step.accumulate
        progress = checkpoint["loops"]["fit_loop"]["epoch_loop.batch_progress"]
        for counts in (progress["total"], progress["current"]):
            counts.update({name: count // before * now for name, count in counts.items()})

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        super().on_save_checkpoint(checkpoint)
        adapters = self.student.adapters
        if adapters is not None:
            checkpoint["state_dict"] = adapters.learned(checkpoint["state_dict"], "student.")
        if "optimizer_states" not in checkpoint:  # a checkpoint of weights only
            return
        groups = self.trainer.optimizers[0].param_groups
        checkpoints.name_states(checkpoint["optimizer_states"][0], self, groups, self._hardware.strategy == "fsdp")
        run: dict[str, Any] = {
            **self._step.size.record,
            "accumulate": self._step.accumulate,
            "world": self._hardware.world,
        }
        run |= {"groups": [group["name"] for group in groups], "base": adapters and adapters.base}
        checkpoint[checkpoints.KEY] = {**vars(self._identity), **run}

    def validation_step(self, batch: Batch, batch_idx: int) -> None:
        self._validation.add(lambda batch: self.student(batch["student"]), batch)

    def on_validation_epoch_end(self) -> None:
        scores = self._validation.scores() | self._validation.written(self.student, self.current_epoch)
        self.log_dict({f"val/{name}": value for name, value in scores.items()}, batch_size=1)


def _whole(hardware: Hardware) -> bool:
    """Whether each term's whole gradient is available. If not, log at level INFO, because the option is on by default."""
    reasons = {
        "hardware.strategy=fsdp": hardware.strategy == "fsdp",  # shards
        "hardware.compile=true": hardware.compile,  # a compiled graph allows one backward pass
        "hardware.precision=16-mixed": hardware.precision
        == "16-mixed",  # small gradients underflow without loss scaling
    }
    conflicts = [reason for reason, holds in reasons.items() if holds]
    if conflicts and ranks.is_first():
        log.info("optim.gradient_norms is ignored: it does not work with %s.", ", ".join(conflicts))
    return not conflicts
