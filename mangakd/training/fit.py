"""One fit: module, loaders, callbacks and a Lightning Trainer. Teacher, baseline and student all go through here."""

import logging
import math
import warnings
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import lightning as L
import torch
from lightning.pytorch.callbacks import ModelCheckpoint

from mangakd.data.loader import EncodedSplit, EvalBatches, TrainLoader
from mangakd.losses.loss_set import LossSet
from mangakd.models.encoder import Encoder
from mangakd.tasks.base import Task
from mangakd.teachers.base import TeacherProvider
from mangakd.training.callbacks.interrupt import SaveOnSignal
from mangakd.training.callbacks.progress import RunProgress
from mangakd.training.module import DistillModule, Optim, Reference


@dataclass(frozen=True)
class Hardware:
    """What conf/hardware holds."""

    accelerator: str = "auto"
    devices: int = 1
    precision: str = "32-true"
    batch_size: int = 64
    eval_batch_size: int = 128
    workers: int = 0
    pin_memory: bool = False

    @property
    def device(self) -> torch.device:
        """Where predictions outside a fit run."""
        name = self.accelerator
        if name == "auto":
            name = "cuda" if torch.cuda.is_available() else "mps" if torch.backends.mps.is_available() else "cpu"
        return torch.device("cuda" if name == "gpu" else name)


@dataclass
class Fit:
    """What one fit needs. reference: the teacher's validation logits (N, C), for agreement and KL while training.

    trainer: further arguments of lightning.Trainer, such as max_epochs.
    """

    title: str
    folder: Path
    task: Task
    train: EncodedSplit
    validation: EncodedSplit
    optim: Optim
    hardware: Hardware
    seed: int
    trainer: dict[str, Any] = field(default_factory=dict)
    reference: torch.Tensor | None = None
    loggers: Sequence[Any] = ()
    resume: Path | None = None


@dataclass(frozen=True)
class FitResult:
    """score: best `val/<monitor>`. samples_per_second: over training steps alone."""

    score: float
    samples_per_second: float
    best: Path


def fit(student: Encoder, losses: LossSet, teacher: TeacherProvider | None, plan: Fit) -> FitResult:
    """Train, and leave the weights of the best validation epoch in `student`.

    Leaves checkpoints/best.ckpt (weights) and checkpoints/last.ckpt (everything, resumable) in plan.folder.
    """
    L.seed_everything(plan.seed, verbose=False)
    checkpoints = plan.folder / "checkpoints"
    evaluation = EvalBatches(plan.validation, plan.hardware.eval_batch_size)
    reference = Reference(torch.from_numpy(plan.validation.labels), torch.from_numpy(evaluation.rows), plan.reference)
    hardware = plan.hardware
    loader = TrainLoader(plan.train, hardware.batch_size, plan.seed, hardware.workers, hardware.pin_memory)
    steps = total_steps(len(loader), **plan.trainer)
    module = DistillModule(student, losses, teacher, plan.task, plan.optim, reference, steps, plan.seed)
    progress = RunProgress(plan.title, steps)
    monitor = f"val/{plan.task.monitor}"
    best = ModelCheckpoint(
        checkpoints, "best", monitor=monitor, mode="max", save_weights_only=True, enable_version_counter=False
    )
    last = ModelCheckpoint(checkpoints, "last", enable_version_counter=False, save_on_train_epoch_end=True)
    trainer = _trainer(plan, [progress, best, last, SaveOnSignal(checkpoints / "last.ckpt")])
    trainer.fit(module, loader, evaluation, ckpt_path=plan.resume, weights_only=False)
    if best.best_model_path:  # absent with trainer.fast_dev_run
        saved = torch.load(best.best_model_path, map_location="cpu", weights_only=False)
        module.load_state_dict(saved["state_dict"])
    score = round(float(best.best_model_score), 6) if best.best_model_score is not None else 0.0
    student.cpu()
    return FitResult(score, progress.samples / max(progress.seconds, 1e-9), checkpoints / "best.ckpt")


def total_steps(
    batches: int, max_epochs: int = 1, max_steps: int = -1, limit_train_batches: float = 1.0,
    accumulate_grad_batches: int = 1, **_: Any,
) -> int:  # fmt: skip
    """Optimizer steps of a fit with these arguments of lightning.Trainer.

    Not trainer.estimated_stepping_batches: asking for it in configure_optimizers builds the loaders before a checkpoint is
    restored, and their position is then dropped without a word (pytorch-lightning#20550).
    """
    limit = limit_train_batches
    used = min(batches, limit) if isinstance(limit, int) else int(batches * limit)
    steps = math.ceil(used / accumulate_grad_batches) * max_epochs
    return min(steps, max_steps) if max_steps > 0 else steps


def _trainer(plan: Fit, callbacks: list[Any]) -> L.Trainer:
    logging.getLogger("lightning.pytorch.utilities.rank_zero").setLevel(logging.WARNING)
    # Lightning advises more loader workers; collation here takes well under a millisecond.
    warnings.filterwarnings("ignore", message=".*does not have many workers.*")
    warnings.filterwarnings("ignore", message=".*Trying to infer the `batch_size`.*")
    options: dict[str, Any] = {"num_sanity_val_steps": 0, "log_every_n_steps": 10, **plan.trainer}
    return L.Trainer(
        accelerator=plan.hardware.accelerator,
        devices=plan.hardware.devices,
        precision=plan.hardware.precision,  # type: ignore[arg-type]
        default_root_dir=plan.folder,
        callbacks=callbacks,
        logger=list(plan.loggers) or False,
        enable_progress_bar=False,
        enable_model_summary=False,
        use_distributed_sampler=False,
        **options,
    )
