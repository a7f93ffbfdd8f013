"""Distillation of a reranker or an embedding model with mangakd, from scores or vectors that a teacher wrote.

    python benchmarks/peers/mangakd_rank.py --task rerank|embedding --data MEDQUAD

Prints one JSON line, as sentence_transformers_kd.py does: its models, texts, pairs of a batch, loss (MSE of scores or vectors),
optimiser and clock. The loop is `fit()`, which is what `train.py` runs. A batch of a ranker is whole queries: of ten documents
each, four queries are 40 pairs. The teacher's answers are random numbers in memory, as the peer's are in its columns.
"""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import rank_common
import torch
from mangakd_fit import InMemory, model_of, timed

import mangakd
from mangakd.core.outputs import Batch, Outputs
from mangakd.core.spec import Head, ModelSpec
from mangakd.data.encoded import EncodedSplit
from mangakd.data.rows import Rows
from mangakd.losses.base import LossCallback
from mangakd.losses.loss_set import LossSet
from mangakd.losses.score_mse import ScoreMSELoss
from mangakd.losses.vector import VectorLoss
from mangakd.models import load
from mangakd.models.location import EMBEDDED
from mangakd.runs.texts import Tokeniser
from mangakd.tasks.base import Task
from mangakd.tasks.embedding.task import Embedding
from mangakd.tasks.rerank.task import Rerank

DOCUMENTS = 10
VALIDATION = 4  # rows: fit() wants a validation split; it is met after the window


class Written(InMemory):
    """The content key of a sequence leads to its row."""

    def __init__(self, split: EncodedSplit, answers: np.ndarray, spec: ModelSpec) -> None:
        self.spec = spec
        keys = split.teacher.keys
        self._order = np.argsort(keys)
        self._keys, self._answers = keys[self._order], answers

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


def train(options: Any, folder: Path) -> tuple[rank_common.StepClock, int]:
    task, rows, head, loss = rows_of(options)
    tokenizer = load.load_tokenizer(EMBEDDED)
    tokenise = Tokeniser(tokenizer, tokenizer, rank_common.MAX_LENGTH, folder / "tokens")
    split = task.encode(rows, head, tokenise)
    path = rank_common.folder(options.layers, options.task, str(folder))
    student = model_of(path, head, "student", tokenizer)
    width = (len(split.student), head.outputs)
    answers = (rank_common.scores if head.kind == "score" else rank_common.vectors)(width[0]).reshape(width)
    losses = LossSet({"kd": loss})
    losses.bind(student.spec, student.spec)
    size = options.batch_size // DOCUMENTS if options.task == "rerank" else options.batch_size
    clock = timed(
        options, folder, task, split, task.encode(validation_of(rows), head, tokenise), student, losses,
        Written(split, answers, student.spec), rank_common.LEARNING_RATE, size,
    )  # fmt: skip
    return clock, options.batch_size * options.steps


def main() -> None:
    options = rank_common.parse(__doc__.splitlines()[0], ("own",))
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as folder:
        clock, samples = train(options, Path(folder))
    rank_common.report(options, clock, "mangakd", mangakd.__version__, samples)


if __name__ == "__main__":
    main()
