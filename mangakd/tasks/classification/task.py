"""Text classification: one label of C, or any subset of C labels (`problem=multi_label`). `task=intent` is this."""

from dataclasses import dataclass, field
from typing import Any

import numpy as np

from mangakd.core.errors import UserError
from mangakd.core.spec import Head, Kind, Problem
from mangakd.data.rows import Rows
from mangakd.data.source import Corpus
from mangakd.evaluation.judge import Judge
from mangakd.tasks.base import Task
from mangakd.tasks.classification.judge import ClassificationJudge
from mangakd.tasks.classification.meters import meters
from mangakd.tasks.meters import Meters


@dataclass
class Classification(Task):
    """Targets are class ids (N) int64, or indicators (N, C) float32 for multi_label."""

    name: str = "intent"
    kind: Kind = "labels"
    problem: Problem = "single_label"
    judge: Judge = field(default_factory=ClassificationJudge)
    monitor: str = "accuracy"

    def __post_init__(self) -> None:
        if self.problem not in ("single_label", "multi_label"):
            raise UserError(f"task.problem={self.problem!r}; known: single_label, multi_label.")

    def head(self, corpus: Corpus, tokenizer: Any) -> Head:
        return Head.of_labels(corpus.labels, several=self.problem == "multi_label")

    def targets(self, rows: Rows, labels: tuple[str, ...]) -> np.ndarray:
        position = {label: i for i, label in enumerate(labels)}
        if self.problem == "multi_label":
            table = np.zeros((len(rows), len(labels)), dtype=np.float32)
            for i, names in enumerate(rows.labels):
                table[i, [position[name] for name in names]] = 1.0
            return table
        several = next((i for i, names in enumerate(rows.labels) if len(names) > 1), None)
        if several is not None:
            raise UserError(
                f"{rows.where(several)} has several labels ({', '.join(rows.labels[several])}), but "
                "task.problem=single_label. Set task.problem=multi_label."
            )
        return np.array([position[names[0]] for names in rows.labels], dtype=np.int64)

    def meters(self, outputs: int, teacher: bool, together: bool) -> Meters:
        return meters(outputs, self.problem == "multi_label", teacher, together)
