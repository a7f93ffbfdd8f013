"""What a run writes into its folder: predictions, student, exports, metrics. docs/reference/run_folder.md lists the files."""

import json
import shlex
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from torch import nn

from mangakd.core.run_folder import CALIBRATION, METRICS, SMOOTH
from mangakd.core.spec import Head
from mangakd.data.source import Corpus
from mangakd.evaluation import predictions
from mangakd.evaluation.predictions import Predictions
from mangakd.evaluation.report.export import FOLDER
from mangakd.export.hf import model_card, save_student
from mangakd.losses.loss_set import LossSet
from mangakd.models.encoder import Encoder
from mangakd.models.token_head import TokenHead
from mangakd.runs.answers import Answers, to_arrays
from mangakd.runs.exports import Exports, data_of, language_data_of
from mangakd.runs.scores import Metrics
from mangakd.runs.texts import Splits
from mangakd.store.files import write_text
from mangakd.tasks.base import Task
from mangakd.teachers.base import TeacherProvider
from mangakd.teachers.calibrated import CalibratedTeacher
from mangakd.training.callbacks.export import export_student
from mangakd.training.callbacks.export_language import export_language


def write_metrics(folder: Path, metrics: Metrics) -> None:
    """Whole or not at all: a report of a sweep may read the folder at any time."""
    write_text(folder / METRICS, json.dumps(metrics, indent=2, sort_keys=True) + "\n")


def read_metrics(folder: Path) -> Metrics:
    """Of a run that ended just now."""
    return json.loads((folder / METRICS).read_text())  # type: ignore[no-any-return]


def write_predictions(
    folder: Path, task: Task, head: Head, corpus: Corpus, splits: Splits, answers: Mapping[str, Answers],
    written: Mapping[str, list[list[str]]],
) -> None:  # fmt: skip
    """For the report. answers: teacher, student, baseline → their answers. written: the texts that they wrote for test rows."""
    facts = task.facts(splits["train"], head)
    for split in ("validation", "test"):
        arrays = {model: to_arrays(each[split]) for model, each in answers.items()}
        rows = splits[split].rows_of(corpus.splits[split])
        own = written if split == "test" else {}
        content = Predictions(head, task.shown(rows), splits[split].columns, arrays, facts, task.lists(rows), own)
        predictions.save(content, folder, split)


def write_student(
    folder: Path, student: Encoder, tokenizer: Any, corpus: Corpus, losses: LossSet, metrics: Metrics, *, task: Task,
    max_length: int, teacher: str, command: Sequence[str], quantised: Any,
) -> float:  # fmt: skip
    """With a model card that says what made it. Returns the megabytes of the weights."""
    kind = "classifier" if student.spec.head.kind == "labels" else "model"
    title = f"{task.name} {kind}, {parameters(student) / 1e6:.1f}M parameters"
    data = f"{corpus.name} ({len(corpus.train)} rows)"
    late = isinstance(student.pooling, TokenHead)
    head = student.spec.head
    use = "late" if late else "pairs" if task.pairs else "source" if head.source else head.kind
    card = model_card(title, teacher, data, losses, metrics, shlex.join(command), use)
    save_student(
        student.model, tokenizer, folder / "student", card, quantised, student.pooling,
        activation=nn.Identity() if task.pairs and not late else None, settings=task.folder_settings(max_length),
    )  # fmt: skip
    return sum(file.stat().st_size for file in (folder / "student").rglob("*.safetensors")) / 1e6


def write_exports(folder: Path, exports: Exports, task: Task, corpus: Corpus, max_length: int) -> None:
    """What the callbacks of export=[…] make of the student's folder. The texts of training calibrate."""
    if exports.language:
        own = language_data_of(task, corpus, folder / "student", max_length)
        export_language(exports.names, folder / "student", folder / FOLDER, own, exports.options)
    elif exports.callbacks:
        data = data_of(folder, task, corpus)
        export_student(exports.callbacks, folder / "student", folder / FOLDER, data, exports.options)


def teacher_sizes(parameters: int) -> Metrics:
    """Megabytes: of weights in fp32. None for a teacher without a model."""
    return {} if not parameters else {"teacher/params": parameters, "teacher/megabytes": parameters * 4 / 1e6}


def calibration(teacher: TeacherProvider) -> Metrics:
    """T and ε of the teacher's soft targets; {} for its own probabilities."""
    if not isinstance(teacher, CalibratedTeacher):
        return {}
    return {CALIBRATION: teacher.temperature, SMOOTH: teacher.smooth}


def parameters(model: Any) -> int:
    return sum(p.numel() for p in model.parameters())
