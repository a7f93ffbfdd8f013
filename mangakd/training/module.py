"""`DistillModule`: one student forward, one teacher answer, one LossSet. The LightningModule of every stage.

    batch ──► student ──► Outputs ─┐
      └─────► teacher ──► Outputs ─┴─► LossSet ──► weighted sum, per-term logs

Fine-tuning a teacher and the no-KD baseline are this module with hard labels only and no teacher.
"""

import math
from dataclasses import dataclass
from typing import Any

import lightning as L
import torch
from torch import Tensor, nn

from mangakd.core.errors import UserError
from mangakd.core.outputs import Batch
from mangakd.data.gather import to_device
from mangakd.losses.loss_set import LossSet, LossSetOutput
from mangakd.models.encoder import Encoder
from mangakd.tasks.base import Task
from mangakd.teachers.base import TeacherProvider


@dataclass(frozen=True)
class Optim:
    """lr: peak. warmup: share of steps; then linear or cosine to 0, or constant. clip: largest gradient norm, or None."""

    lr: float = 5e-4
    weight_decay: float = 0.01
    warmup: float = 0.1
    schedule: str = "linear"
    clip: float | None = 1.0

    def factor(self, step: int, steps: int) -> float:
        """Multiplier of lr at `step` of `steps`."""
        ramp = max(round(self.warmup * steps), 1)
        if step < ramp:
            return (step + 1) / ramp
        done = (step - ramp) / max(steps - ramp, 1)
        return {"linear": 1 - done, "cosine": (1 + math.cos(math.pi * done)) / 2, "constant": 1.0}[self.schedule]


@dataclass(frozen=True)
class Reference:
    """Validation targets (N) or (N, C), rows of the validation batches, and the teacher's logits (N, C) if there is one."""

    targets: Tensor
    rows: Tensor
    teacher: Tensor | None = None


class DistillModule(L.LightningModule):
    """student and losses are trained, saved and sharded; the teacher is a plain object and none of these.

    steps: optimizer steps of the whole fit, for schedules. seed: randomness of step n is a function of (seed, n), so that a
    resumed run draws what the uninterrupted one draws.
    Raises UserError naming the loss term when a loss is not finite, before the weights are touched.
    """

    def __init__(
        self, student: Encoder, losses: LossSet, teacher: TeacherProvider | None, task: Task, optim: Optim,
        reference: Reference, steps: int, seed: int = 0,
    ) -> None:  # fmt: skip
        super().__init__()
        if losses.needs_teacher and teacher is None:
            raise ValueError("these losses need a teacher")
        self.student = student.require(losses.requires.student)
        self.losses = losses
        self.teacher = teacher if losses.needs_teacher else None
        self._task, self._optim, self._reference = task, optim, reference
        self._steps, self._seed = steps, seed
        self._validation: list[Tensor] = []
        self._broken: Tensor | None = None

    def on_fit_start(self) -> None:
        if self.teacher is not None:
            self.teacher.prepare(self.device, self.losses.requires.teacher)

    def on_train_start(self) -> None:
        self.student.train()  # from_pretrained returns eval mode and Lightning leaves it so

    def transfer_batch_to_device(self, batch: Any, device: torch.device, dataloader_idx: int) -> Any:
        return to_device(batch, device)

    def on_train_batch_start(self, batch: Batch, batch_idx: int) -> None:
        # torch.manual_seed would also format a stack trace for every backend that is not there: half a millisecond a step.
        seed = self._seed * 1_000_003 + self.global_step
        torch.default_generator.manual_seed(seed)
        if self.device.type != "cpu":
            torch.get_device_module(self.device).manual_seed(seed)

    def training_step(self, batch: Batch, batch_idx: int) -> Tensor:
        student = self.student(batch["student"])
        teacher = self.teacher(batch) if self.teacher is not None else None
        result: LossSetOutput = self.losses(student, teacher, batch, self.progress)
        self._guard(result)
        if self._logged:
            self._log(result)
        return result.total

    @property
    def _logged(self) -> bool:
        """Whether loggers write this step, or it is the first or the last of an epoch, which the progress line shows.

        Lightning's log() takes a third of a millisecond for each value, at every step, written or not.
        """
        every = self.trainer.log_every_n_steps  # type: ignore[attr-defined]
        written = every > 0 and (self.global_step + 1) % every == 0
        return written or self.global_step == 0 or self.trainer.is_last_batch

    def _log(self, result: LossSetOutput) -> None:
        terms = {f"train/loss/{name}": value for name, value in result.terms.items()}
        weights = {f"train/weight/{name}": value for name, value in result.weights.items()}
        logs = {f"train/{name}": value for name, value in result.logs.items()}
        self.log_dict({"train/loss": result.total.detach(), **terms, **weights, **logs}, batch_size=1)

    @property
    def progress(self) -> float:
        """0 at the first step, 1 after the last."""
        return self.global_step / max(self._steps, 1)

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

    def validation_step(self, batch: Batch, batch_idx: int) -> None:
        self._validation.append(self.student(batch["student"]).logits.float())

    def on_validation_epoch_end(self) -> None:
        logits, self._validation = torch.cat(self._validation).cpu(), []
        ref = self._reference
        rows = ref.rows[: len(logits)]  # the sanity check sees the first batches only
        teacher = ref.teacher[rows] if ref.teacher is not None else None
        scores = self._task.metrics(logits, ref.targets[rows], teacher)
        if teacher is not None:
            best = self._task.metrics(teacher, ref.targets[rows])[self._task.monitor]
            scores["retention"] = scores[self._task.monitor] / max(best, 1e-9)
        self.log_dict({f"val/{name}": value for name, value in scores.items()}, batch_size=1)

    def configure_optimizers(self) -> Any:
        optimizer = torch.optim.AdamW(self._groups(), lr=self._optim.lr, fused=self.device.type in ("cpu", "cuda"))
        schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: self._optim.factor(step, self._steps))
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}

    def _groups(self) -> list[dict[str, Any]]:
        """Parameter groups named `student` and `losses.<name>`, each with its part that is not decayed (biases, norms)."""
        owners: dict[str, nn.Module] = {"student": self.student}
        owners |= {f"losses.{name}": loss for name, loss in self.losses.losses.items()}
        groups = []
        for name, module in owners.items():
            parameters = [p for p in module.parameters() if p.requires_grad]
            for suffix, decay, chosen in (
                ("", self._optim.weight_decay, [p for p in parameters if p.dim() > 1]),
                (".no_decay", 0.0, [p for p in parameters if p.dim() <= 1]),
            ):
                if chosen:
                    groups.append({"params": chosen, "weight_decay": decay, "name": name + suffix})
        return groups

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        found = [group.get("name") for group in checkpoint["optimizer_states"][0]["param_groups"]]
        expected = [group["name"] for group in self._groups()]
        if found != expected:
            raise UserError(
                f"the checkpoint's optimizer holds the groups {found}, this run has {expected}: the losses differ. "
                "Resume with the losses of the first run, or start anew with resume=false and another hydra.run.dir."
            )

    def configure_gradient_clipping(
        self, optimizer: Any, gradient_clip_val: Any = None, gradient_clip_algorithm: Any = None
    ) -> None:
        if self._optim.clip is None:
            return
        # A T²-scaled KD loss is cut harder than plain cross-entropy, so how often it happens is logged.
        norm = nn.utils.clip_grad_norm_([p for g in optimizer.param_groups for p in g["params"]], self._optim.clip)
        if self._logged:
            self.log("train/clipped", (norm > self._optim.clip).float(), batch_size=1, on_step=True, on_epoch=False)
