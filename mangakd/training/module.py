"""`DistillModule`: one student forward, one teacher answer, one LossSet. The LightningModule of every stage.

    batch ──► student ──► Outputs ─┐
      └─────► teacher ──► Outputs ─┴─► LossSet ──► weighted sum, per-term logs

Fine-tuning a teacher and the no-KD baseline are this module with hard labels only and no teacher.
"""

import logging
import math
from dataclasses import dataclass
from typing import Any

import lightning as L
import torch
from torch import Tensor, nn
from torch.distributed.tensor import DTensor

from mangakd.core import ranks
from mangakd.core.errors import UserError
from mangakd.core.outputs import Batch
from mangakd.data.gather import to_device
from mangakd.losses.gradient_norms import GradientNorms
from mangakd.losses.loss_set import LossSet, LossSetOutput
from mangakd.models.encoder import Encoder
from mangakd.teachers.base import TeacherProvider
from mangakd.training import checkpoints, parallel
from mangakd.training.checkpoints import Identity
from mangakd.training.hardware import Hardware
from mangakd.training.quantise import HOOKS
from mangakd.training.validation import Validation

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Optim:
    """lr: peak. warmup: share of steps; then linear or cosine to 0, or constant. clip: largest gradient norm, or None.

    gradient_norms: every so many steps, log how hard each loss term pulls, at a backward pass for each term; None never.
    """

    lr: float = 5e-4
    weight_decay: float = 0.01
    warmup: float = 0.1
    schedule: str = "linear"
    clip: float | None = 1.0
    gradient_norms: int | None = None

    def factor(self, step: int, steps: int) -> float:
        """Multiplier of lr at `step` of `steps`."""
        ramp = max(round(self.warmup * steps), 1)
        if step < ramp:
            return (step + 1) / ramp
        done = (step - ramp) / max(steps - ramp, 1)
        return {"linear": 1 - done, "cosine": (1 + math.cos(math.pi * done)) / 2, "constant": 1.0}[self.schedule]


@dataclass(frozen=True)
class Step:
    """The optimizer's steps: how many in the whole fit, rows of each on all ranks, micro-batches of each on this rank."""

    count: int
    rows: int
    accumulate: int = 1


class DistillModule(L.LightningModule):
    """student and losses are trained, saved and sharded; the teacher is a plain object and none of these.

    seed: randomness of a micro-batch is a function of (seed, step, rank, micro-batch), so that a resumed run draws what the
    uninterrupted one draws. identity: what its checkpoints say they belong to.
    Raises UserError naming the loss term when a loss is not finite, before the weights are touched.
    """

    def __init__(
        self, student: Encoder, losses: LossSet, teacher: TeacherProvider | None, optim: Optim,
        validation: Validation, step: Step, seed: int = 0, hardware: Hardware | None = None, identity: Identity | None = None,
    ) -> None:  # fmt: skip
        super().__init__()
        if losses.needs_teacher and teacher is None:
            raise ValueError("these losses need a teacher")
        self.student = student.require(losses.requires.student)
        self.losses = losses
        self.teacher = teacher if losses.needs_teacher else None
        self._optim, self._validation = optim, validation
        self._step, self._seed = step, seed
        self._hardware, self._identity = hardware or Hardware(), identity or Identity()
        self._rank = ranks.rank() if self._hardware.world > 1 else 0
        self._broken: Tensor | None = None
        self._shown: Tensor | None = None
        self._norms = GradientNorms(student) if optim.gradient_norms and _whole(self._hardware) else None

    def configure_model(self) -> None:
        if self._hardware.strategy != "fsdp":
            return
        mesh = self.device_mesh["data_parallel"]  # type: ignore[index]
        parallel.shard(self, self.student, self.losses, mesh, self._hardware.precision)
        if self.teacher is not None and self._hardware.teacher.placement == "sharded":
            for encoder in self.teacher.encoders:
                parallel.shard_encoder(encoder, mesh)

    def on_fit_start(self) -> None:
        if self.teacher is not None:
            self.teacher.prepare(self.device, self.losses.requires.teacher)

    def on_train_start(self) -> None:
        self.student.train()  # from_pretrained returns eval mode and Lightning leaves it so

    def transfer_batch_to_device(self, batch: Any, device: torch.device, dataloader_idx: int) -> Any:
        return to_device(batch, device)

    def on_train_batch_start(self, batch: Batch, batch_idx: int) -> None:
        # torch.manual_seed would also format a stack trace for every backend that is not there: half a millisecond a step.
        part = self._rank * self._step.accumulate + batch_idx % self._step.accumulate
        seed = self._seed * 1_000_003 + self.global_step + (part << 44)
        torch.default_generator.manual_seed(seed)
        if self.device.type != "cpu":
            torch.get_device_module(self.device).manual_seed(seed)

    def training_step(self, batch: Batch, batch_idx: int) -> Tensor:
        student = self.student(batch["student"])
        teacher = self.teacher(batch) if self.teacher is not None else None
        result: LossSetOutput = self.losses(student, teacher, batch, self.progress)
        self._guard(result)
        if self._norms is not None and self._written and self.loggers and self._pulls_due:
            self._norms.add(result.weighted, 1 / self._step.accumulate)
        if self._logged(batch_idx):
            self._log(result, batch_idx)
        return result.total

    def _logged(self, batch_idx: int) -> bool:
        """Whether loggers write this step, or it is the first or the last of an epoch, which the progress line shows.

        Lightning's log() takes a third of a millisecond for each value, at every step, written or not.
        """
        last = batch_idx // self._step.accumulate == (self.trainer.num_training_batches - 1) // self._step.accumulate
        return self._written or self.global_step == 0 or last

    @property
    def _written(self) -> bool:
        """Whether loggers write this step."""
        every = self.trainer.log_every_n_steps  # type: ignore[attr-defined]
        return every > 0 and (self.global_step + 1) % every == 0

    @property
    def _pulls_due(self) -> bool:
        return (self.global_step + 1) % (self._optim.gradient_norms or 1) == 0

    def _log(self, result: LossSetOutput, batch_idx: int) -> None:
        """The step's losses: means over its micro-batches and over ranks, in one exchange."""
        values = {"train/loss": result.total.detach()}
        values |= {f"train/loss/{name}": value for name, value in result.terms.items()}
        values |= {f"train/{name}": value for name, value in result.logs.items()}
        shown = torch.stack([value.float() for value in values.values()]) / self._step.accumulate
        micro = batch_idx % self._step.accumulate
        self._shown = shown if micro == 0 or self._shown is None else self._shown + shown
        if micro < self._step.accumulate - 1 and not self.trainer.is_last_batch:
            return
        whole = self._mean(self._shown)
        weights = {f"train/weight/{name}": value for name, value in result.weights.items()}
        self.log_dict({**dict(zip(values, whole, strict=True)), **weights}, batch_size=1)
        pulls = self._norms.taken(self._mean) if self._norms is not None else {}
        # Lightning's log() would write them again at the steps that follow.
        for logger in self.loggers if pulls else ():
            named = {f"train/gradient_norm/{name}": value.item() for name, value in pulls.items()}
            logger.log_metrics(named, step=self.global_step)

    def _mean(self, value: Tensor) -> Tensor:
        """Over ranks."""
        return self.trainer.strategy.reduce(value, reduce_op="mean")  # type: ignore[return-value]

    @property
    def progress(self) -> float:
        """0 at the first step, 1 after the last."""
        return self.global_step / max(self._step.count, 1)

    def _guard(self, result: LossSetOutput) -> None:
        """Remember on the device whether a term was not finite; look at once on a CPU, every 20 steps elsewhere."""
        names = list(result.terms)
        bad = ~torch.stack([result.terms[name].float() for name in names]).isfinite()
        self._broken = bad if self._broken is None else self._broken | bad
        if bad.device.type == "cpu" or self.global_step % 20 == 0:
            self.check_finite(names)

    def check_finite(self, names: list[str] | None = None) -> None:
        names = names or list(self.losses.losses)
        if self._broken is not None and bool(self._broken.any()):
            term = ", ".join(name for name, bad in zip(names, self._broken.tolist(), strict=True) if bad)
            raise UserError(
                f"the loss term {term} is not finite (NaN or infinity) at step {self.global_step}. The last good checkpoint is "
                "kept in checkpoints/. Lower optim.lr, raise optim.warmup, or look at this term's weight and temperature."
            )

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        self.check_finite()  # a checkpoint is only ever written from a finite run
        if "optimizer_states" not in checkpoint:  # weights alone
            return
        groups = self.trainer.optimizers[0].param_groups
        checkpoints.name_states(checkpoint["optimizer_states"][0], self, groups, self._hardware.strategy == "fsdp")
        run = {"step_rows": self._step.rows, "accumulate": self._step.accumulate, "world": self._hardware.world}
        checkpoint[checkpoints.KEY] = {**vars(self._identity), **run, "groups": [group["name"] for group in groups]}

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Lightning counts micro-batches; on other devices a step may have more or fewer of them."""
        before, now = checkpoint[checkpoints.KEY]["accumulate"], self._step.accumulate
        progress = checkpoint["loops"]["fit_loop"]["epoch_loop.batch_progress"]
        for counts in (progress["total"], progress["current"]):
            counts.update({name: count // before * now for name, count in counts.items()})

    def validation_step(self, batch: Batch, batch_idx: int) -> None:
        self._validation.add(self.student(batch["student"]).logits, batch["labels"])

    def on_validation_epoch_end(self) -> None:
        self.log_dict({f"val/{name}": value for name, value in self._validation.scores().items()}, batch_size=1)

    def configure_optimizers(self) -> Any:
        optimizer = torch.optim.AdamW(
            parameter_groups(self.student, self.losses, self._optim.weight_decay),
            lr=self._optim.lr,
            fused=self.device.type in ("cpu", "cuda"),
        )
        schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: self._optim.factor(step, self._step.count))
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}

    def configure_gradient_clipping(
        self, optimizer: Any, gradient_clip_val: Any = None, gradient_clip_algorithm: Any = None
    ) -> None:
        if self._optim.clip is None:
            return
        # A T²-scaled KD loss is cut harder than plain cross-entropy, so how often it happens is logged.
        norm = nn.utils.clip_grad_norm_([p for g in optimizer.param_groups for p in g["params"]], self._optim.clip)
        if isinstance(norm, DTensor):
            norm = norm.full_tensor()
        if self._shown is not None:  # this step is logged
            self._shown = None
            self.log("train/clipped", (norm > self._optim.clip).float(), batch_size=1, on_step=True, on_epoch=False)


def _whole(hardware: Hardware) -> bool:
    """Whether each term's whole gradient can be had; told where not. It is on by default, so that is no warning."""
    reasons = {
        "hardware.strategy=fsdp": hardware.strategy == "fsdp",  # shards
        "hardware.compile=true": hardware.compile,  # a compiled graph is gone after one backward pass
        "hardware.precision=16-mixed": hardware.precision == "16-mixed",  # small gradients are 0 before they are scaled
    }
    found = [reason for reason, holds in reasons.items() if holds]
    if found and ranks.is_first():
        log.info("optim.gradient_norms is ignored: it does not go with %s.", ", ".join(found))
    return not found


def parameter_groups(student: Encoder, losses: LossSet, weight_decay: float = 0.0) -> list[dict[str, Any]]:
    """Optimizer groups `student` and `losses.<name>`, each with its part that is not decayed (biases, norms)."""
    owners: dict[str, nn.Module] = {"student": student}
    owners |= {f"losses.{name}": loss for name, loss in losses.losses.items()}
    groups = []
    for name, module in owners.items():
        named = [(key, p) for key, p in module.named_parameters() if p.requires_grad]
        # Ranges of quantisers, one for each channel of a weight, have its number of dimensions and are not weights.
        decays = [p.dim() > 1 and HOOKS not in key for key, p in named]
        for suffix, decay, chosen in (
            ("", weight_decay, [p for (_, p), yes in zip(named, decays, strict=True) if yes]),
            (".no_decay", 0.0, [p for (_, p), yes in zip(named, decays, strict=True) if not yes]),
        ):
            if chosen:
                groups.append({"params": chosen, "weight_decay": decay, "name": name + suffix})
    return groups
