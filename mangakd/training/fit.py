"""One fit: module, loaders, callbacks and a Lightning Trainer. Teacher, baseline and student all go through here.

Under a profile with several devices every rank calls `fit` with the same arguments, and gets the same result back.
"""

import copy
import logging
import math
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import lightning as L
import torch
from lightning.fabric.plugins.environments import LightningEnvironment

from mangakd.core import ranks
from mangakd.core.errors import UserError
from mangakd.data.encoded import EncodedSplit
from mangakd.data.loader import TrainLoader
from mangakd.data.sampler import Share
from mangakd.losses.loss_set import LossSet
from mangakd.models.encoder import Encoder
from mangakd.tasks.base import Task
from mangakd.teachers.base import TeacherProvider
from mangakd.training import checkpoints, parallel
from mangakd.training.callbacks.best import Best
from mangakd.training.callbacks.patience import Patience
from mangakd.training.callbacks.progress import RunProgress
from mangakd.training.callbacks.save_last import SaveEvery, SaveLast
from mangakd.training.checkpoints import AtomicIO, Identity
from mangakd.training.hardware import Hardware
from mangakd.training.optim import Optim, parameter_groups
from mangakd.training.run_module import RunModule, Step
from mangakd.training.validation import Validation


@dataclass
class Fit:
    """What one fit needs. reference: the teacher's answers on validation (`Task.ask`), for agreement and KL while training.

    trainer: further arguments of lightning.Trainer, such as max_epochs. identity: what it learns from, for its checkpoints.
    keep: best (validation epoch) or last; None: best where the losses read the logits, else their score says nothing.
    patience: epochs without a better score after which it ends.
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
    reference: Mapping[str, torch.Tensor] | None = None
    loggers: Sequence[Any] = ()
    resume: Path | None = None
    save_every: SaveEvery = field(default_factory=SaveEvery)
    identity: Identity = field(default_factory=Identity)
    keep: str | None = None
    patience: int | None = None

    @property
    def checkpoints(self) -> Path:
        return self.folder / "checkpoints"


@dataclass(frozen=True)
class FitResult:
    """score: best `val/<monitor>`. samples_per_second: over training steps alone, on all devices. steps: that were taken."""

    score: float
    samples_per_second: float
    steps: int


def fit(student: Encoder, losses: LossSet, teacher: TeacherProvider | None, plan: Fit) -> FitResult:
    """Train, and leave the weights that are kept (see Fit) in `student`, on the CPU.

    Leaves checkpoints/best.ckpt (weights) and checkpoints/last.ckpt (everything, resumable) in plan.folder.
    Raises UserError when the checkpoint to resume from is damaged, or was written with other inputs.
    """
    L.seed_everything(plan.seed, verbose=False)
    hardware = plan.hardware
    sharded = hardware.strategy == "fsdp"
    # Shards cannot be put together again in place: a twin is trained, and its weights come back through best.ckpt.
    trained, terms = copy.deepcopy((student, losses)) if sharded else (student, losses)
    step_rows, accumulate = _step(plan, losses, student)
    share = _share(hardware, accumulate)
    loader = TrainLoader(plan.train, step_rows, plan.seed, share, hardware.workers, hardware.pin_memory)
    _check_filled(plan, share)
    step = Step(total_steps(len(loader), accumulate, **plan.trainer), step_rows, accumulate)
    validation = Validation(
        plan.task, student.spec.head, plan.validation, hardware.eval_batch_size, share, plan.reference
    )
    module = RunModule(trained, terms, teacher, plan.optim, validation, step, plan.seed, hardware, plan.identity)
    judge, monitor = plan.task.judge, f"val/{plan.task.monitor}"
    mode = judge.score(plan.task.monitor).mode
    progress = RunProgress(plan.title, step.count, hardware.world, dict.fromkeys([plan.task.monitor, *judge.watched]))
    best = Best(plan.checkpoints, monitor, mode)
    last = SaveLast(plan.checkpoints, plan.save_every, accumulate, hardware.world > 1, loader)
    stop = [Patience(monitor, patience=plan.patience, mode=mode)] if plan.patience else []
    trainer = _trainer(plan, parallel.strategy(hardware, losses), accumulate, [progress, best, last, *stop])
    with trained.compiled(hardware.compile):
        trainer.fit(module, loader, validation.batches, ckpt_path=plan.resume, weights_only=False)
    keep = plan.keep or ("best" if losses.requires.student.logits else "last")
    kept = plan.checkpoints / ("best.ckpt" if keep == "best" else checkpoints.LAST)
    if kept.is_file():  # absent with trainer.fast_dev_run
        _bring_back(student, kept)
    score = round(float(best.best_model_score), 6) if best.best_model_score is not None else 0.0
    student.cpu()
    return FitResult(score, progress.samples / max(progress.seconds, 1e-9), trainer.global_step)


def _step(plan: Fit, losses: LossSet, student: Encoder) -> tuple[int, int]:
    """(rows of an optimizer step, micro-batches of it on this rank): the profile's, or those of the run that goes on."""
    if plan.resume is None:
        return plan.hardware.step_rows, plan.hardware.accumulate
    found = checkpoints.read(plan.resume)[checkpoints.KEY]
    checkpoints.check_same(plan.resume, found, plan.identity)
    expected = [group["name"] for group in parameter_groups(student, losses)]
    if found["groups"] != expected:
        raise UserError(
            f"the optimizer of {plan.resume} holds the groups {found['groups']}, this run has {expected}: the losses differ. "
            "Resume with the losses of the first run, or start anew with resume=false and another hydra.run.dir."
        )
    return checkpoints.kept_step(plan.resume, found, plan.hardware)


def _share(hardware: Hardware, accumulate: int) -> Share:
    """Of this process. A fit on one device may run on one rank of many (the teacher's fine-tuning)."""
    if hardware.world > 1:
        ranks.wait()  # the first rank may have worked alone for longer than the strategy's group has patience
        return Share(ranks.rank(), hardware.world, accumulate)
    return Share(accumulate=accumulate)


def _check_filled(plan: Fit, share: Share) -> None:
    if len(plan.train) < share.parts:
        raise UserError(
            f"{len(plan.train)} training rows cannot be shared by {share.world} devices × {share.accumulate} micro-batches. "
            "Use fewer devices (hardware=cpu), hardware.accumulate=1 or more rows (data.train_limit)."
        )


def _bring_back(student: Encoder, kept: Path) -> None:
    saved = torch.load(kept, map_location="cpu", weights_only=False)["state_dict"]
    own = {name.removeprefix("student."): value for name, value in saved.items() if name.startswith("student.")}
    student.load_state_dict(own)


def total_steps(
    batches: int, accumulate: int = 1, max_epochs: int = 1, max_steps: int = -1, limit_train_batches: float = 1.0, **_: Any
) -> int:  # fmt: skip
    """Optimizer steps of a fit with these arguments of lightning.Trainer.

    Not trainer.estimated_stepping_batches: asking for it in configure_optimizers builds the loaders before a checkpoint is
    restored, and their position is then dropped without a word (pytorch-lightning#20550).
    """
    limit = limit_train_batches
    used = min(batches, limit) if isinstance(limit, int) else int(batches * limit)
    steps = math.ceil(used / accumulate) * max_epochs
    return min(steps, max_steps) if max_steps > 0 else steps


def _trainer(plan: Fit, strategy: Any, accumulate: int, callbacks: list[Any]) -> L.Trainer:
    logging.getLogger("lightning.pytorch.utilities.rank_zero").setLevel(logging.WARNING)
    warnings.filterwarnings("ignore", message=".*Trying to infer the `batch_size`.*")
    warnings.filterwarnings("ignore", message=".*returned a view tensor.*")  # taps; no loss writes into them
    warnings.filterwarnings("ignore", message=".*sync_dist=True.*")  # metrics are of all ranks' rows already
    warnings.filterwarnings("ignore", message=".*(LeafSpec|functional.all_gather).*")  # Lightning's own deprecations
    warnings.filterwarnings("ignore", message=".*Checkpoint directory .* exists and is not empty.*")
    options: dict[str, Any] = {"num_sanity_val_steps": 0, "log_every_n_steps": 10, **plan.trainer}
    return L.Trainer(
        accelerator=plan.hardware.accelerator,
        devices=plan.hardware.devices,
        num_nodes=plan.hardware.nodes,
        strategy=strategy,
        precision=plan.hardware.precision,  # type: ignore[arg-type]
        accumulate_grad_batches=accumulate,
        # Ours are the processes, whoever started them: a fit on one device must not think itself part of a larger job.
        plugins=[AtomicIO(), LightningEnvironment()],
        default_root_dir=plan.folder,
        callbacks=callbacks,
        logger=list(plan.loggers) or False,
        enable_progress_bar=False,
        enable_model_summary=False,
        use_distributed_sampler=False,
        **options,
    )
