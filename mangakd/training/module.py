"""`DistillModule`: one student forward, one teacher answer, one LossSet. The LightningModule of every stage.

    batch ──► student ──► Outputs ─┐
      └─────► teacher ──► Outputs ─┴─► LossSet ──► weighted sum, per-term logs

Any lightning.Trainer trains the module, with models and batches of Hugging Face or of mangakd. The command's fits use the
subclass in run_module.py, which adds the task's validation scores, shards, and checkpoints that resume bit for bit.
"""

import logging
import math
from collections.abc import Iterable, Mapping
from functools import cached_property
from typing import Any

import lightning as L
import torch
from lightning.pytorch.trainer.states import TrainerFn
from torch import Tensor, nn
from torch.distributed.tensor import DTensor

from mangakd.core.errors import UserError
from mangakd.core.outputs import Batch
from mangakd.data.gather import to_device
from mangakd.losses.base import LossCallback
from mangakd.losses.gradient_norms import GradientNorms
from mangakd.losses.loss_set import LossSet, LossSetOutput
from mangakd.models.encoder import Encoder
from mangakd.training import hugging_face
from mangakd.training.optim import Optim, parameter_groups

log = logging.getLogger(__name__)


class DistillModule(L.LightningModule):
    """Student and losses are submodules: Lightning trains, saves and shards them. The teacher is a plain attribute.

    student: a Hugging Face classifier, trained in place. teacher: a classifier, a list of classifiers as an ensemble, a
    TeacherProvider, or None if no loss needs a teacher. losses: name → loss. optim: AdamW and its schedule; override
    `configure_optimizers` for another optimizer.
    Batches of a Hugging Face collator go to both models: `input_ids` and `attention_mask` (B, T), `labels` (B), or (B, C) for
    multi-label heads. Models with different tokenizers need batches {"student": …, "teacher": …, "labels": …}.

        module = DistillModule(
            student=student, teacher=teacher,
            losses={"hard_label": losses.HardLabel(weight=0.3), "output": losses.Output(weight=0.7, temperature=2)},
        )
        lightning.Trainer(max_epochs=3).fit(module, loader)
        module.student.save_pretrained("student")

    With `accumulate_grad_batches` each micro-batch has its own mean, as everywhere in Lightning. Only the command's loader
    divides by the whole step. If no loss reads the student's logits, the head gets no gradients; DDP then needs
    strategy="ddp_find_unused_parameters_true".
    seed: the random state of a micro-batch is a function of (seed, step, rank, micro-batch). So a resumed run draws the same
    random numbers as an uninterrupted run.
    Raises UserError that names the wrong argument. Raises UserError that names a non-finite loss term, before an update.
    """

    def __init__(
        self, student: Any, teacher: Any = None, losses: Mapping[str, LossCallback] | LossSet | None = None, *,
        optim: Optim | None = None, seed: int = 0,
    ) -> None:  # fmt: skip
        super().__init__()
        student = Encoder.of(student, "student")
        provider = hugging_face.teacher(teacher, student)
        self.losses = hugging_face.losses(losses, student.spec, provider, seed)
        self.student = student.require(self.losses.requires.student)
        self.teacher = provider if self.losses.needs_teacher else None
        self._optim, self._seed = optim or Optim(), seed
        self._nonfinite: Tensor | None = None
        self._loss_sum: Tensor | None = None
        self._norms = GradientNorms(student) if self._optim.gradient_norms else None

    @cached_property
    def steps(self) -> int:
        """Optimizer steps of the whole fit. Raises UserError if the schedule needs the last step and the Trainer has no end."""
        steps = self.trainer.estimated_stepping_batches
        if not math.isfinite(steps):
            raise UserError(
                f"Optim(schedule={self._optim.schedule!r}) needs to know the last step, and this Trainer has none: give it "
                "max_epochs or max_steps."
            )
        return int(steps)

    @property
    def accumulate(self) -> int:
        """Micro-batches of an optimizer step."""
        return self.trainer.accumulate_grad_batches

    @property
    def rank(self) -> int:
        return self.global_rank

    @torch.no_grad()
    def calibrate(self, batches: Iterable[Any]) -> None:
        """Fit temperatures by class or by entropy to the teacher's answers, before training (losses/temperature.py).

        batches: of the validation rows. Raises UserError without a teacher.
        """
        if self.teacher is None:
            raise UserError("calibrate needs a teacher, and no loss uses a teacher: remove the call.")
        self.teacher.prepare(self.device, self.losses.requires.teacher)
        answers = [self.teacher(to_device(self._ours(batch), self.device)).answer for batch in batches]
        self.losses.calibrate(torch.cat(answers))

    def setup(self, stage: str) -> None:
        self.__dict__.pop("steps", None)  # the cached value of an earlier fit

    def on_fit_start(self) -> None:
        self.losses.check_ranks(self.trainer.world_size, "Use one device.")
        if self.accumulate > 1 and self.losses.comparing and self.rank == 0:
            log.warning(
                "losses %s compare the rows of a micro-batch, not those of the whole optimizer step, which has %d micro-batches.",
                ", ".join(self.losses.comparing), self.accumulate,
            )  # fmt: skip
        self._prepare_teacher()

    def on_validation_start(self) -> None:
        if self.trainer.state.fn != TrainerFn.FITTING:
            self._prepare_teacher()

    def on_test_start(self) -> None:
        self._prepare_teacher()

    def _prepare_teacher(self) -> None:
        if self.teacher is not None:
            self.teacher.prepare(self.device, self.losses.requires.teacher)

    def _ours(self, batch: Any) -> Batch:
        return hugging_face.batch(batch, self.student, self.teacher)

    def on_before_batch_transfer(self, batch: Any, dataloader_idx: int) -> Batch:
        return self._ours(batch)

    def on_train_start(self) -> None:
        self.student.train()  # from_pretrained returns eval mode, and Lightning does not change the mode

    def transfer_batch_to_device(self, batch: Any, device: torch.device, dataloader_idx: int) -> Any:
        return to_device(batch, device)

    def on_train_batch_start(self, batch: Batch, batch_idx: int) -> None:
        # torch.manual_seed also formats a stack trace for every absent backend, which takes half a millisecond a step.
        part = self.rank * self.accumulate + batch_idx % self.accumulate
        seed = self._seed * 1_000_003 + self.global_step + (part << 44)
        torch.default_generator.manual_seed(seed)
        if self.device.type != "cpu":
            torch.get_device_module(self.device).manual_seed(seed)

    def training_step(self, batch: Batch, batch_idx: int) -> Tensor:
        result = self._losses_of(batch, self.progress, across=self.trainer.world_size > 1)
        self._guard(result)
        if self._norms is not None and self._writes_step and self.loggers and self._pulls_due:
            self._norms.add(result.weighted, 1 / self.accumulate)
        if self._logs_step(batch_idx):
            self._log(result, batch_idx)
        return result.total

    def _losses_of(self, batch: Batch, progress: float, across: bool = False) -> LossSetOutput:
        student = self.student(batch["student"])
        teacher = self.teacher(batch) if self.teacher is not None else None
        return self.losses(student, teacher, batch, progress, across)

    def validation_step(self, batch: Batch, batch_idx: int) -> None:
        self._log_losses(batch, "val")

    def test_step(self, batch: Batch, batch_idx: int) -> None:
        self._log_losses(batch, "test")

    def predict_step(self, batch: Batch, batch_idx: int) -> Tensor:
        """The student's answers: logits (B, C), or vectors (B, D)."""
        return self.student(batch["student"]).answer

    def _log_losses(self, batch: Batch, split: str) -> None:
        """Log the losses with the weights of the end of training (progress 1), as means over rows.

        Ranks may hold different numbers of batches here, so each compares the rows of its own.
        """
        result = self._losses_of(batch, 1.0)
        values = {f"{split}/loss": result.total} | {f"{split}/loss/{name}": term for name, term in result.terms.items()}
        self.log_dict(values, batch_size=len(batch["student"]["input_ids"]), sync_dist=True, prog_bar=False)

    def _logs_step(self, batch_idx: int) -> bool:
        """Whether to log this step: loggers write the step, or the progress line shows the step (an epoch's first or last).

        Lightning's log() takes a third of a millisecond for each value at every step, even if no logger writes the step.
        """
        last = batch_idx // self.accumulate == (self.trainer.num_training_batches - 1) // self.accumulate
        return self._writes_step or self.global_step == 0 or last

    @property
    def _writes_step(self) -> bool:
        """Whether loggers write this step."""
        every = self.trainer.log_every_n_steps  # type: ignore[attr-defined]
        return every > 0 and (self.global_step + 1) % every == 0

    @property
    def _pulls_due(self) -> bool:
        return (self.global_step + 1) % (self._optim.gradient_norms or 1) == 0

    def _log(self, result: LossSetOutput, batch_idx: int) -> None:
        """Log the step's losses: means over its micro-batches and over ranks, in one all-reduce."""
        values = {"train/loss": result.total.detach()}
        values |= {f"train/loss/{name}": value for name, value in result.terms.items()}
        values |= {f"train/{name}": value for name, value in result.logs.items()}
        losses = torch.stack([value.float() for value in values.values()]) / self.accumulate
        micro = batch_idx % self.accumulate
        self._loss_sum = losses if micro == 0 or self._loss_sum is None else self._loss_sum + losses
        if micro < self.accumulate - 1 and not self.trainer.is_last_batch:
            return
        whole = self._mean(self._loss_sum)
        weights = {f"train/weight/{name}": value for name, value in result.weights.items()}
        self.log_dict({**dict(zip(values, whole, strict=True)), **weights}, batch_size=1)
        pulls = self._norms.take(self._mean) if self._norms is not None else {}
        # Lightning's log() would write the norms again at later steps.
        for logger in self.loggers if pulls else ():
            norms = {f"train/gradient_norm/{name}": value.item() for name, value in pulls.items()}
            logger.log_metrics(norms, step=self.global_step)

    def _mean(self, value: Tensor) -> Tensor:
        """The mean over ranks."""
        return self.trainer.strategy.reduce(value, reduce_op="mean")  # type: ignore[return-value]

    @property
    def progress(self) -> float:
        """0 at the first step, 1 after the last."""
        return self.global_step / max(self.steps, 1)

    def _guard(self, result: LossSetOutput) -> None:
        """Record on the device whether a term is not finite. Read the record at once on a CPU, every 20 steps elsewhere."""
        names = list(result.terms)
        bad = ~torch.stack([result.terms[name].float() for name in names]).isfinite()
        self._nonfinite = bad if self._nonfinite is None else self._nonfinite | bad
        if bad.device.type == "cpu" or self.global_step % 20 == 0:
            self.check_finite(names)

    def check_finite(self, names: list[str] | None = None) -> None:
        names = names or list(self.losses.losses)
        if self._nonfinite is not None and bool(self._nonfinite.any()):
            term = ", ".join(name for name, bad in zip(names, self._nonfinite.tolist(), strict=True) if bad)
            raise UserError(
                f"the loss term {term} is not finite (NaN or infinity) at step {self.global_step}. Earlier checkpoints are kept. "
                "Lower optim.lr, raise optim.warmup, or look at this term's weight and temperature."
            )

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        self.check_finite()  # a checkpoint must not hold weights of a run with NaN losses

    def configure_optimizers(self) -> Any:
        optimizer = torch.optim.AdamW(
            parameter_groups(self.student, self.losses, self._optim.weight_decay),
            lr=self._optim.lr,
            fused=self.device.type in ("cpu", "cuda"),
        )
        schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: self._optim.factor(step, self.steps))
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}

    def configure_gradient_clipping(
        self, optimizer: Any, gradient_clip_val: Any = None, gradient_clip_algorithm: Any = None
    ) -> None:
        if gradient_clip_val is not None:  # the Trainer's argument wins
            self.clip_gradients(optimizer, gradient_clip_val, gradient_clip_algorithm)
            return
        if self._optim.clip is None:
            return
        # Clipping cuts a T²-scaled KD loss more than plain cross-entropy. So the share of clipped steps is logged.
        norm = nn.utils.clip_grad_norm_([p for g in optimizer.param_groups for p in g["params"]], self._optim.clip)
        if isinstance(norm, DTensor):
            norm = norm.full_tensor()
        if self._loss_sum is not None:  # log this step
            self._loss_sum = None
            self.log("train/clipped", (norm > self._optim.clip).float(), batch_size=1, on_step=True, on_epoch=False)
