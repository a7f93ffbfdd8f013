"""Fine-tuning and distillation of an encoder–decoder with mangakd.

    python benchmarks/peers/mangakd_seq2seq.py --variant plain|stored --data ROWS --model FOLDER

Prints one JSON line, as hf_seq2seq.py does: its model, rows, steps and clock. The loop is `fit()`, which is what `train.py` runs.
*plain*: cross-entropy with the rewrites. *stored*: forward KL with the 64 best tokens and the mass of all others that a teacher
wrote, in memory, besides (alpha 0.9); their values are random, since only time is measured.
"""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

import seq2seq_common as common
from mangakd_fit import model_of, timed
from mangakd_tokens import Written

import mangakd
from mangakd.core.outputs import Batch, Outputs
from mangakd.core.spec import Head
from mangakd.data.rows import NOTHING, Rows
from mangakd.losses.loss_set import LossSet
from mangakd.losses.tokens import TokensLoss
from mangakd.models import load
from mangakd.runs.texts import Tokeniser
from mangakd.tasks.rewrite.encode import COLUMNS
from mangakd.tasks.rewrite.task import Rewrite

HEAD = Head("tokens", 0, source=True)
VALIDATION = 1  # rows: fit() wants a validation split; it is met after the window


class CountedLoss(TokensLoss):
    """Keeps the loss and the tokens of each step."""

    def __init__(self, alpha: float) -> None:
        super().__init__(alpha=alpha)
        self.values: list[float] = []
        self.tokens: list[int] = []

    def forward(self, student: Outputs, teacher: Outputs | None, batch: Batch) -> Any:
        output = super().forward(student, teacher, batch)
        self.values.append(float(output.sum.detach()) / int(output.count))
        self.tokens.append(int(batch["student"]["attention_mask"].sum()))
        return output


def splits(options: Any, task: Rewrite, tokenizer: Any, cache: Path) -> list[Any]:
    rows = common.rows(options)
    columns: dict[str, Any] = {name: [NOTHING[kind]] * len(rows) for name, kind in COLUMNS.items()}
    columns["history"] = [tuple(row["turns"][:-1]) for row in rows]
    columns |= {"utterance": [row["turns"][-1] for row in rows], "rewrite": [(row["rewrite"],) for row in rows]}
    tokenise = Tokeniser(tokenizer, tokenizer, common.SOURCE, cache)
    every = Rows(columns)
    return [task.encode(part, HEAD, tokenise) for part in (every, every.take(range(VALIDATION)))]


def main() -> None:
    options = common.parse(__doc__.splitlines()[0], ("plain", "stored"))
    tokenizer = load.load_tokenizer(options.model)
    task = Rewrite(generate=0)
    student = model_of(options.model, HEAD, "student", tokenizer)
    teacher = Written(student.spec)
    loss = CountedLoss(0.0 if options.variant == "plain" else 0.9)
    losses = LossSet({"tokens": loss})
    losses.bind(student.spec, teacher.spec)
    with tempfile.TemporaryDirectory() as folder:
        split = splits(options, task, tokenizer, Path(folder) / "tokens")
        clock = timed(
            options, Path(folder), task, *split, student, losses, teacher, common.LEARNING_RATE, options.batch_size
        )
    common.report(options, clock, "mangakd", mangakd.__version__, loss.values, loss.tokens)


if __name__ == "__main__":
    main()
