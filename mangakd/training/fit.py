"""One fit: module, loaders, callbacks and a Lightning Trainer. `fit` trains teacher, baseline and student.

With several devices every rank calls `fit` with the same arguments and gets the same result.
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
from mangakd.data.steps import StepSize
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
from mangakd.training.on_policy import OwnTexts
from mangakd.training.optim import Optim, parameter_groups
from mangakd.training.recompute import recomputing
from mangakd.training.run_module import RunModule, Step
from mangakd.training.validation import Validation
from mangakd.training.validation_texts import ValidationTexts


@dataclass
class Fit:
    """The inputs of one fit. reference: the teacher's answers on validation (`Task.ask`), for agreement and KL while training.

    trainer: further arguments of lightning.Trainer, such as max_epochs. identity: see `Identity`; saved in the checkpoints.
    keep: best (validation epoch) or last; None: best if the losses read the logits, because otherwise the score says nothing.
    patience: the fit ends after this number of epochs without a better score. own_texts: of a student that writes batches itself.
    texts: that the student writes on validation; without them a monitor that needs texts gives way to the judge's main score.
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
    own_texts: OwnTexts | None = None
    texts: ValidationTexts | None = None

    @property
    def monitor(self) -> str:
        judge = self.task.judge
        return judge.main if self.texts is None and self.task.monitor in judge.generated else self.task.monitor

    @property
    def checkpoints(self) -> Path:
        return self.folder / "checkpoints"


@dataclass(frozen=True)
class FitResult:
    """score: `val/<monitor>` of the epoch that is kept, NaN without a validation pass. steps: of the optimizer.

    samples_per_second: in training steps only, on all devices.
    """

    score: float
    samples_per_second: float
    steps: int


def fit(student: Encoder, losses: LossSet, teacher: TeacherProvider | None, setup: Fit) -> FitResult:
    """Train `student` in place; it ends on the CPU with the weights that `Fit.keep` selects.

    Writes checkpoints/best.ckpt (weights) and checkpoints/last.ckpt (everything, resumable) to setup.folder.
    Raises UserError if the checkpoint to resume from is damaged or was written with other inputs.
    """
    L.seed_everything(setup.seed, verbose=False)
    hardware = setup.hardware
    sharded = hardware.strategy == "fsdp"
    # FSDP cannot unshard a model in place. So a copy is trained, and the student loads the copy's weights from the checkpoint.
    model, terms = copy.deepcopy((student, losses)) if sharded else (student, losses)
    _check_tokens(setup)
    size, accumulate = _step(setup, losses, student)
    share = _share(hardware, accumulate)
    loader = TrainLoader(setup.train, size, setup.seed, share, hardware.workers, hardware.pin_memory)
    _check_rows(setup, share)
    _check_units(setup.train, losses)
    step = Step(total_steps(len(loader), accumulate, **setup.trainer), size, accumulate)
    beside = teacher if losses.needs_teacher else None  # else the teacher is not where the student is
    validation = Validation(
        setup.task,
        student.spec.head,
        setup.validation,
        hardware.eval_batch_size,
        share,
        setup.reference,
        beside,
        setup.texts,
    )
    module = RunModule(
        model, terms, teacher, setup.optim, validation, step, setup.seed, hardware, setup.identity, setup.own_texts
    )
    judge, monitor = setup.task.judge, f"val/{setup.monitor}"
    mode = judge.score(setup.monitor).mode
    progress = RunProgress(setup.title, step.count, hardware.world, dict.fromkeys([setup.monitor, *judge.watched]))
    best = Best(setup.checkpoints, monitor, mode)
    last = SaveLast(setup.checkpoints, setup.save_every, accumulate, hardware.world > 1, loader)
    stop = [Patience(monitor, patience=setup.patience, mode=mode)] if setup.patience else []
    trainer = _trainer(setup, parallel.strategy(hardware, losses), accumulate, [progress, best, last, *stop])
    with recomputing(model, hardware.activation_checkpointing), model.compiled(hardware.compile):
        trainer.fit(module, loader, validation.batches, ckpt_path=setup.resume, weights_only=False)
    keep = setup.keep or ("best" if losses.requires.student.answer else "last")
    file = setup.checkpoints / ("best.ckpt" if keep == "best" else checkpoints.LAST)
    if file.is_file():  # absent with trainer.fast_dev_run
        _load_weights(student, file)
    score = best.best_model_score if keep == "best" else best.newest
    student.cpu()
    return FitResult(
        round(float(score), 6) if score is not None else math.nan,
        progress.samples / max(progress.seconds, 1e-9),
        trainer.global_step,
    )


def _step(setup: Fit, losses: LossSet, student: Encoder) -> tuple[StepSize, int]:
    """(size of an optimizer step, its micro-batches on this rank): the profile's, or the checkpoint's if the fit resumes."""
    if setup.resume is None:
        return setup.hardware.step, setup.hardware.accumulate
    record = checkpoints.read(setup.resume)[checkpoints.KEY]
    checkpoints.check_same(setup.resume, record, setup.identity)
    _check_base(setup.resume, record, student)
    groups = [group["name"] for group in parameter_groups(student, losses)]
    if record["groups"] != groups:
        raise UserError(
            f"the optimizer of {setup.resume} holds the groups {record['groups']}, this run has {groups}: the losses differ. "
            "Resume with the losses of the first run, or start a new run with resume=false and another hydra.run.dir."
        )
    size, accumulate = checkpoints.resume_step(setup.resume, record, setup.hardware, setup.train.row_tokens)
    checkpoints.warn_of_micro_batches(record, accumulate, setup.hardware.world, losses.comparing)
    return size, accumulate


def _share(hardware: Hardware, accumulate: int) -> Share:
    """The share of this process. A fit on one device may run on one of many ranks (the teacher's fine-tuning)."""
    if hardware.world > 1:
        ranks.wait()  # the first rank may have worked alone for longer than the timeout of the strategy's group
        return Share(ranks.rank(), hardware.world, accumulate)
    return Share(accumulate=accumulate)


def _check_rows(setup: Fit, share: Share) -> None:
    if len(setup.train) < share.parts:
        raise UserError(
            f"{len(setup.train)} training rows cannot be shared by {share.world} devices × {share.accumulate} micro-batches. "
            "Use fewer devices (hardware=cpu), hardware.accumulate=1 or more rows (data.train_limit)."
        )


def _check_tokens(setup: Fit) -> None:
    """Refuse a row that a batch of tokens cannot hold. Preflight knows the longest sequence, and not how many a row owns."""
    most, longest = setup.hardware.tokens_per_batch, int(setup.train.row_tokens.max(initial=0))
    if most is not None and longest > most:
        raise UserError(
            f"a training row takes up to {longest:,} tokens (the longest sequence × the sequences of a row), and a batch holds "
            f"hardware.tokens_per_batch={most:,}. Set hardware.tokens_per_batch={longest} or more, or lower data.max_length."
        )


def _check_units(split: EncodedSplit, losses: LossSet) -> None:
    """A loss whose unit nobody counts could not be divided by what the optimizer step holds."""
    for name, loss in losses.callbacks.items():
        if loss.unit not in split.units:
            raise UserError(
                f"losses.{name} counts in {loss.unit}, which the task does not count: its encode must give EncodedSplit the "
                f"units {{{loss.unit!r}: …}}."
            )


def _check_base(file: Path, record: Mapping[str, Any], student: Encoder) -> None:
    """A checkpoint of adapters lacks the weights under them, which are read from the student's source."""
    base = student.adapters.base if student.adapters else None
    if record.get("base") != base:
        raise UserError(
            f"{file} was written with other weights under the student's adapters (digest {record.get('base')}, now {base}): "
            "student.path, or the teacher that its layers come from, changed, or student.lora was switched. Put the model back, "
            "or start a new run with resume=false and another hydra.run.dir."
        )


def _load_weights(student: Encoder, file: Path) -> None:
    state = torch.load(file, map_location="cpu", weights_only=False)["state_dict"]
    own = {name.removeprefix("student."): value for name, value in state.items() if name.startswith("student.")}
    student.load_state_dict(own, strict=student.adapters is None)


def total_steps(
    batches: int, accumulate: int = 1, max_epochs: int = 1, max_steps: int = -1, limit_train_batches: float = 1.0, **_: Any
) -> int:  # fmt: skip
    """The number of optimizer steps of a fit with these arguments of lightning.Trainer.

    trainer.estimated_stepping_batches would be wrong here: configure_optimizers needs the number, so the property would build
    the loaders before the checkpoint is restored. Lightning then silently drops their position (pytorch-lightning#20550).
    """
    limit = limit_train_batches
    batches_used = min(batches, limit) if isinstance(limit, int) else int(batches * limit)
    steps = math.ceil(batches_used / accumulate) * max_epochs
    return min(steps, max_steps) if max_steps > 0 else steps


def _trainer(setup: Fit, strategy: Any, accumulate: int, callbacks: list[Any]) -> L.Trainer:
    logging.getLogger("lightning.pytorch.utilities.rank_zero").setLevel(logging.WARNING)
    warnings.filterwarnings("ignore", message=".*Trying to infer the `batch_size`.*")
    warnings.filterwarnings("ignore", message=".*returned a view tensor.*")  # taps; no loss writes into them
    warnings.filterwarnings("ignore", message=".*sync_dist=True.*")  # metrics already cover the rows of all ranks
    warnings.filterwarnings("ignore", message=".*(LeafSpec|functional.all_gather).*")  # Lightning's own deprecations
    warnings.filterwarnings("ignore", message=".*Checkpoint directory .* exists and is not empty.*")
    options: dict[str, Any] = {"num_sanity_val_steps": 0, "log_every_n_steps": 10, **setup.trainer}
    return L.Trainer(
        accelerator=setup.hardware.accelerator,
        devices=setup.hardware.devices,
        num_nodes=setup.hardware.nodes,
        strategy=strategy,
        precision=setup.hardware.precision,  # type: ignore[arg-type]
        accumulate_grad_batches=accumulate,
        # mangakd starts the processes. Without LightningEnvironment a fit on one device could join a larger SLURM job.
        plugins=[AtomicIO(), LightningEnvironment()],
        default_root_dir=setup.folder,
        callbacks=callbacks,
        logger=list(setup.loggers) or False,
        enable_progress_bar=False,
        enable_model_summary=False,
        use_distributed_sampler=False,
        **options,
    )
