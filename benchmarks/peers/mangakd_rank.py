"""Distillation of a reranker or an embedding model with mangakd, from scores or vectors that a teacher wrote.

    python benchmarks/peers/mangakd_rank.py --task rerank|embedding --data MEDQUAD

Prints one JSON line, as sentence_transformers_kd.py does: its models, texts, pairs of a batch, loss (MSE of scores or vectors),
optimiser and clock. The loop is `fit()`, which is what `train.py` runs. A batch of a ranker is whole queries: of ten documents
each, four queries are 40 pairs. The teacher's answers are random numbers in memory, as the peer's are in its columns.
"""

from __future__ import annotations

import contextlib
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import rank_common
import torch
from lightning.pytorch.loggers import CSVLogger

import mangakd
from mangakd.core.outputs import Batch, Outputs
from mangakd.core.requires import Need
from mangakd.core.spec import Head, ModelSpec
from mangakd.data.encoded import EncodedSplit
from mangakd.data.rows import Rows
from mangakd.losses.base import LossCallback
from mangakd.losses.loss_set import LossSet
from mangakd.losses.score_mse import ScoreMSELoss
from mangakd.losses.vector import VectorLoss
from mangakd.models import load
from mangakd.models.encoder import Encoder
from mangakd.models.location import EMBEDDED
from mangakd.runs.texts import Tokeniser
from mangakd.tasks.base import Task
from mangakd.tasks.embedding.task import Embedding
from mangakd.tasks.rerank.task import Rerank
from mangakd.teachers.base import TeacherProvider
from mangakd.training.fit import Fit, fit
from mangakd.training.hardware import Hardware
from mangakd.training.optim import Optim

DOCUMENTS = 10
VALIDATION = 4  # rows: fit() wants a validation split; it is met after the window


class Written(TeacherProvider):
    """A teacher whose answers are in memory: the content key of a sequence leads to its row."""

    def __init__(self, split: EncodedSplit, answers: np.ndarray, spec: ModelSpec) -> None:
        self.spec = spec
        keys = split.teacher.keys
        self._order = np.argsort(keys)
        self._keys, self._answers = keys[self._order], answers

    @property
    def gives(self) -> Need:
        return Need(answer=True)

    @property
    def fingerprint(self) -> str:
        return "random"

    def prepare(self, device: torch.device, need: Need) -> Written:
        return self

    def __call__(self, batch: Batch) -> Outputs:
        rows = self._order[np.searchsorted(self._keys, batch["key"].numpy())]
        return Outputs.of(
            self.spec.head.kind, torch.from_numpy(self._answers[rows]), batch["teacher"]["attention_mask"]
        )


def validation_of(rows: Rows) -> Rows:
    """A few rows that a judge can score; they are met after the window."""
    few = rows.take(range(VALIDATION))
    if "text" not in rows:
        return few
    columns = {"anchor": few["text"], "positive": few["text"][::-1], "text": [""] * VALIDATION}
    return Rows({**few.columns, **columns, "score": [i / VALIDATION for i in range(VALIDATION)]})


def rows_of(options: Any) -> tuple[Task, Rows, Head, LossCallback]:
    if options.task == "rerank":
        groups = rank_common.groups(options.data)[: options.rows // DOCUMENTS]
        columns = {
            "query": [q for q, _, _ in groups], "documents": [tuple(d) for _, d, _ in groups],
            "grades": [tuple(g) for _, _, g in groups],
        }  # fmt: skip
        return Rerank(), Rows(columns), Head("score", 1), ScoreMSELoss()
    texts = rank_common.texts(options)
    nothing = {"anchor": [""] * len(texts), "positive": [""] * len(texts), "negatives": [()] * len(texts)}
    columns = {"text": texts, **nothing, "score": [np.nan] * len(texts)}
    return Embedding(), Rows(columns), Head("vector", rank_common.WIDTH), VectorLoss()


def student_of(options: Any, folder: Path, head: Head, tokenizer: Any) -> Encoder:
    path = rank_common.folder(options.layers, options.task, str(folder))
    model = load.read_model(load.outline_for(path, head, "student.path"), path, "student.path")
    return load.encoder(model, head, "student", tokenizer)


def train(options: Any, folder: Path) -> tuple[rank_common.StepClock, int]:
    task, rows, head, loss = rows_of(options)
    tokenizer = load.load_tokenizer(EMBEDDED)
    tokenise = Tokeniser(tokenizer, tokenizer, rank_common.MAX_LENGTH, folder / "tokens")
    split = task.encode(rows, head, tokenise)
    student = student_of(options, folder, head, tokenizer)
    width = (len(split.student), head.outputs)
    answers = (rank_common.scores if head.kind == "score" else rank_common.vectors)(width[0]).reshape(width)
    losses = LossSet({"kd": loss})
    losses.bind(student.spec, student.spec)
    size = options.batch_size // DOCUMENTS if options.task == "rerank" else options.batch_size
    clock = rank_common.StepClock(options.warmup, options.steps)
    plan = Fit(
        "benchmark", folder, task, split, task.encode(validation_of(rows), head, tokenise),
        Optim(lr=rank_common.LEARNING_RATE, warmup=0.0, schedule="constant", clip=None),
        Hardware(accelerator="cpu", batch_size=size, precision="bf16-mixed" if options.bf16 else "32-true"), options.seed,
        trainer={"max_epochs": 1, "max_steps": clock.last}, loggers=[CSVLogger(folder, "logs", "")],
    )  # fmt: skip
    with clock.watch_any(), contextlib.redirect_stdout(sys.stderr):  # stdout is for the JSON line
        fit(student, losses, Written(split, answers, student.spec), plan)  # type: ignore[arg-type]
    return clock, options.batch_size * options.steps


def main() -> None:
    options = rank_common.parse(__doc__.splitlines()[0], ("own",))
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as folder:
        clock, samples = train(options, Path(folder))
    rank_common.report(options, clock, "mangakd", mangakd.__version__, samples)


if __name__ == "__main__":
    main()
