"""Distillation of a language model with mangakd, from a live teacher or from the K best tokens that one wrote.

    python benchmarks/peers/mangakd_tokens.py --variant live|stored --data GSM8K --teacher FOLDER

Prints one JSON line, as trl_kd.py does: its models, conversations, steps, loss (forward KL alone) and clock. The loop is `fit()`,
which is what `train.py` runs, with fused AdamW. *stored*: 64 tokens and the mass of all others at each position, in memory;
their values are random, since only time is measured.
"""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import token_common
import torch
from mangakd_fit import InMemory, model_of, timed

import mangakd
from mangakd.core.outputs import TARGETS, Batch, Outputs
from mangakd.core.spec import Head, ModelSpec
from mangakd.core.token_logits import TopK
from mangakd.data.rows import NOTHING, Rows
from mangakd.losses.loss_set import LossSet
from mangakd.losses.tokens import TokensLoss
from mangakd.models import load
from mangakd.runs.texts import Tokeniser
from mangakd.tasks.response.encode import COLUMNS
from mangakd.tasks.response.task import Response
from mangakd.teachers.base import TeacherProvider
from mangakd.teachers.local import LocalTeacher

HEAD = Head("tokens", 0)
K = 64
VALIDATION = 1  # conversations: fit() wants a validation split; it is met after the window


class Written(InMemory):
    """K tokens and the mass of all others at any position."""

    def __init__(self, spec: ModelSpec, size: int = 4096) -> None:
        self.spec = spec
        generator = torch.Generator().manual_seed(0)
        width = spec.head.outputs
        self._ids = torch.stack([torch.randperm(width, generator=generator)[:K] for _ in range(size)])
        self._log_probs = torch.log_softmax(torch.randn(size, K + 1, generator=generator) * 3, 1)

    def __call__(self, batch: Batch) -> Outputs:
        count = int(batch["teacher"][TARGETS].sum())
        answer = TopK(self._ids[:count], self._log_probs[:count, :K], self._log_probs[:count, K])
        return Outputs(None, batch["teacher"]["attention_mask"], tokens=answer)


class KeptLosses(TokensLoss):
    """Keeps the loss of each step."""

    def __init__(self) -> None:
        super().__init__(alpha=1.0)
        self.values: list[float] = []

    def forward(self, student: Outputs, teacher: Outputs | None, batch: Batch) -> Any:
        output = super().forward(student, teacher, batch)
        self.values.append(float(output.sum.detach()) / int(output.count))
        return output


def split_of(options: Any, task: Response, tokenizer: Any, cache: Path) -> Any:
    pairs = token_common.rows(options)
    columns: dict[str, Any] = {name: [NOTHING[kind]] * len(pairs) for name, kind in COLUMNS.items()}
    columns |= {"prompt": [question for question, _ in pairs], "answer": [answer for _, answer in pairs]}
    tokenise = Tokeniser(tokenizer, tokenizer, token_common.MAX_LENGTH, cache)
    return [task.encode(rows, HEAD, tokenise) for rows in (Rows(columns), Rows(columns).take(range(VALIDATION)))]


def train(options: Any, folder: Path) -> tuple[token_common.StepClock, list[float], int]:
    tokenizer = load.load_tokenizer(options.teacher)
    task = Response()
    split, validation = split_of(options, task, tokenizer, folder / "tokens")
    student = model_of(token_common.student(options, str(folder)), HEAD, "student", tokenizer)
    teacher: TeacherProvider = (
        LocalTeacher(model_of(options.teacher, HEAD, "teacher", tokenizer), HEAD)
        if options.variant == "live"
        else Written(student.spec)
    )
    loss = KeptLosses()
    losses = LossSet({"tokens": loss})
    losses.bind(student.spec, teacher.spec)
    clock = timed(
        options,
        folder,
        task,
        split,
        validation,
        student,
        losses,
        teacher,
        token_common.LEARNING_RATE,
        options.batch_size,
    )
    tokens = int(np.sum(split.student.lengths)) * options.steps // (options.steps + options.warmup)
    return clock, loss.values, tokens


def main() -> None:
    options = token_common.parse(__doc__.splitlines()[0], ("live", "stored"))
    with tempfile.TemporaryDirectory() as folder:
        clock, losses, tokens = train(options, Path(folder))
    token_common.report(options, clock, "mangakd", mangakd.__version__, losses, tokens)


if __name__ == "__main__":
    main()
