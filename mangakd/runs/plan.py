"""The plan of a run as configured: memory, time and price from its models' configs and its texts. Nothing is trained."""

import copy
import math
from collections.abc import Sequence
from dataclasses import replace
from typing import Any, NamedTuple, cast

import numpy as np
import torch

from mangakd.core.spec import Head
from mangakd.data.apart import Apart
from mangakd.data.encoded import EncodedSplit
from mangakd.data.sampler import BucketSampler, Share
from mangakd.data.tokens import Sequences
from mangakd.losses.loss_set import LossSet
from mangakd.models import heads
from mangakd.models.lora import Lora
from mangakd.models.token_head import TokenHead
from mangakd.planning import index, table
from mangakd.planning.job import TEACHER_BYTES, Job, Machine, Placement
from mangakd.planning.plan import Estimate, estimate
from mangakd.planning.sizes import ADAPTERS, Model
from mangakd.runs.run import Run
from mangakd.runs.texts import stage_rows
from mangakd.store.manifest import Manifest
from mangakd.store.writer import Plan
from mangakd.teachers.cached import Cached, stored
from mangakd.teachers.fill import counts_of
from mangakd.teachers.options import TeacherOptions
from mangakd.teachers.several import CONCATENATED
from mangakd.training.hardware import Hardware
from mangakd.training.stages import Stage


def estimated(run: Run, machine: Machine) -> Estimate:
    """Of the run's one stage; of a recipe of several, of one fit of trainer.max_epochs on the labelled texts."""
    return estimate(*_models(run), machine, _job(run, machine))


def batches(hardware: Hardware, precision: str, machine: Machine) -> dict[str, Any]:
    """How a job's rows are spread. precision: as typed; `auto` on a CPU is that of the planned CPU, not of this one."""
    choice = hardware.precision
    if precision == "auto" and hardware.kind == "cpu":
        choice = "bf16-mixed" if "bf16" in machine.tflops else "32-true"
    return {
        "batch": hardware.batch_size, "budget": hardware.tokens_per_batch or 0, "accumulation": hardware.accumulate,
        "precision": choice, "checkpointing": hardware.activation_checkpointing,
    }  # fmt: skip


def remarks(plan: Estimate, stages: list[Stage], baseline: bool, lmbda: float = 0.0) -> list[str]:
    """Lines about what the plan leaves out: further stages, the baseline, and what the student writes itself."""
    lines = []
    if len(stages) > 1:
        names = ", ".join(stage.name for stage in stages)
        lines += ["", f"planned is one stage of trainer.max_epochs on the labelled texts; the recipe has {names}"]
        if any(stage.limit is not None for stage in stages):
            lines += ["", "planned are all labelled texts, whatever the limit of a stage"]
    if baseline:
        alone = replace(plan.job, teacher="none", soft_targets=False, hidden_pairs=0, attention_pairs=0)
        total = table.between(estimate(plan.student, None, plan.machine, alone).total, table.duration)
        lines += ["", f"baseline=true, the same student without a teacher, takes another {total}"]
    if lmbda:
        lines += [
            "",
            f"the time in which the student writes the texts of distill.lmbda={lmbda} of the steps is left out",
        ]
    return lines


def _models(run: Run) -> tuple[Model, Model]:
    """Student and teacher with the task's head; an ensemble counts all its members."""
    parts, models = run.parts, run.models
    student = _model(
        models.student_shape, models.head, "student.path" if parts.student.path else "student.sizes",
        parts.student.adapters or ADAPTERS,
    )  # fmt: skip
    teacher = _model(models.teacher_shape, models.head, "teacher.path")
    return student, teacher.times(len(parts.teacher.models) or 1)


def _model(shape: Any, head: Head, key: str, adapters: Lora = ADAPTERS) -> Model:
    config = copy.deepcopy(shape.config)
    config.update(heads.entries(head))
    model = Model.from_config(config, config.model_type, head.kind, key, adapters)
    with torch.random.fork_rng(devices=[]):  # a new head of late interaction is random
        own = heads.states_head(head.kind, config)
    if own is None:
        return model
    weights = sum(p.numel() for p in own.parameters())
    if isinstance(own, TokenHead):
        return model.with_head(weights, own.shape.outputs, per_token=True)
    return model.with_head(weights, own.settings.width(config.hidden_size), per_token=False)


def _job(run: Run, machine: Machine) -> Job:
    """The training of this run. Its examples are sequences: a ranker's row owns one for each document."""
    given, parts, losses = run.given, run.parts, run.material.losses
    stage = parts.stages[0] if len(parts.stages) == 1 else Stage("any")
    train, validation = stage_rows(run.material.splits, stage), run.material.splits["validation"]
    mined, added = parts.task.mining_size(train)
    each = (len(train.student) + added) / len(train)
    sides = {"student": train.student, "teacher": train.teacher}
    apart = {side: own for side, own in sides.items() if isinstance(own, Apart)}
    queries = {f"{side}_queries": 1 / each for side in apart}
    spread = batches(parts.hardware, given.settings("hardware.precision"), machine)
    needs = [loss.requires.teacher for loss in losses.callbacks.values()]
    micro = _micro_batches(train, parts.hardware, given.seed)
    lengths = {side: _lengths(train, tokens, micro) for side, tokens in sides.items()}
    adapters = parts.student.adapters
    return Job(
        f"{parts.task.name} as configured{f', {each:.1f} sequences a row' if each > 1 else ''}",
        len(train.student) + added,
        stage.epochs or given.trainer["max_epochs"],
        **lengths["student"]._asdict(),
        teacher_length=lengths["teacher"].length,
        query_length=max((_query_tokens(own) for own in apart.values()), default=0),
        mined=mined,
        teacher=_placement(losses, _teacher(run, stage), parts.hardware),
        teacher_dtype=_teacher_dtype(parts.hardware, run.models.teacher_config),
        soft_targets=losses.requires.teacher.answer,
        hidden_pairs=sum(len(need.hidden) for need in needs),
        attention_pairs=sum(len(need.attention) for need in needs),
        lora=adapters.rank if adapters else None,
        four_bit=adapters is not None and adapters.four_bit,
        eval_examples=len(validation.student),
        **spread | {"batch": _batch(parts.hardware, train, micro, each)} | queries,
    )


def token_index(run: Run, plan: Estimate) -> list[str]:
    """Lines about the search index of a student that makes a vector for each token; none for other students."""
    student = run.material.splits["train"].student
    if not isinstance(student, Apart):
        return []
    return ["", *index.lines(plan.student.outputs, tokens=math.ceil(student.documents.lengths.mean()))]


def store(run: Run) -> list[str]:
    """A line about what a stored teacher writes; none for other teachers."""
    stage = next((stage for stage in run.parts.stages if stage.teacher == "stored"), Stage("any"))
    options, models = _teacher(run, stage), run.models
    if not isinstance(options, Cached):
        return []
    spec, splits = models.teacher_spec, run.material.splits.values()
    members = 1 if options.combine == CONCATENATED else len(options.members)
    manifest = Manifest("", "", spec.head, members, **options.record(spec)._asdict())
    keys, first = np.unique(np.concatenate([split.teacher.keys for split in splits]), return_index=True)
    counts = np.concatenate([counts_of(split, manifest) for split in splits])[first]
    plan = Plan(len(keys), int(counts.sum()), manifest.record_bytes, manifest.of_tokens)
    return ["", f"the store of the teacher's answers takes {plan}"]


def _teacher(run: Run, stage: Stage) -> TeacherOptions:
    """Of the stage: its own answers may be stored."""
    options = run.parts.teacher
    return stored(options, run.models.head.kind) if stage.teacher == "stored" else options


def _query_tokens(pairs: Apart) -> int:
    """On average, with the mask tokens that are added."""
    return math.ceil(np.maximum(pairs.queries.lengths, pairs.augmentation.length).mean())


def _teacher_dtype(hardware: Hardware, config: Any) -> str:
    """The profile's; with auto, the dtype that the teacher's config.json gives."""
    dtype = hardware.teacher.dtype
    if dtype == "auto":
        dtype = str(config.dtype).removeprefix("torch.")
    return dtype if dtype in TEACHER_BYTES else "float32"


def _placement(losses: LossSet, teacher: TeacherOptions, hardware: Hardware) -> Placement:
    if not losses.needs_teacher:
        return "none"
    return (
        "cached" if isinstance(teacher, Cached) or not teacher.models else cast(Placement, hardware.teacher.placement)
    )


def _micro_batches(train: EncodedSplit, hardware: Hardware, seed: int) -> list[list[int]]:
    """The rows of each forward pass of the first device in an epoch."""
    share = Share(0, hardware.world, hardware.accumulate)
    return [
        micro.rows
        for micro in BucketSampler(train.row_tokens, hardware.step, seed, {}, share, targets=train.decoder_tokens)
    ]


def _batch(hardware: Hardware, train: EncodedSplit, micro: Sequence[Sequence[int]], each: float) -> int:
    """Sequences of a forward pass: of the profile's rows, or the mean where batches are filled with tokens.

    each: sequences of a row, with those that the teacher mines.
    """
    if hardware.tokens_per_batch is None:
        return math.ceil(hardware.batch_size * each)
    return max(round(len(train.student) / (len(micro) * hardware.world)), 1)


class _Lengths(NamedTuple):
    """Of a batch's sequences, as in planning.job.Job."""

    length: int
    longest: int
    target: int = 0
    longest_target: int = 0


def _lengths(train: EncodedSplit, tokens: Sequences, micro: Sequence[Sequence[int]]) -> _Lengths:
    """Sources and targets are padded apart."""
    every, targets = train.lengths(tokens), train.decoder_tokens
    if targets is None:
        return _Lengths(_padded(every, micro), int(every.max()))
    sources = every - targets
    target, longest = _padded(targets, micro), int(targets.max())
    return _Lengths(_padded(sources, micro) + target, int(sources.max()) + longest, target, longest)


def _padded(lengths: np.ndarray, micro: Sequence[Sequence[int]]) -> int:
    """Tokens of a text in training batches on average, padding included. lengths: of each row's longest."""
    tokens = sum(len(rows) * lengths[rows].max() for rows in micro)
    return math.ceil(tokens / sum(map(len, micro)))
