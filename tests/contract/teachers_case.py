"""A row of teachers_table.py as a provider over tiny data."""

from pathlib import Path

import numpy as np
import torch
from contract.teachers_table import Row
from contract.tiny_models import Teachers, context

from mangakd.core.outputs import Batch
from mangakd.core.requires import Need
from mangakd.core.spec import Head
from mangakd.data.encoded import EncodedSplit
from mangakd.teachers.calibrated import calibrated

CPU = torch.device("cpu")


class Case:
    """A row's provider, prepared, over tiny data. members: fresh copies of the models behind it."""

    def __init__(self, row: Row, cache: Path) -> None:
        self.row = row
        self.load = Teachers(row.head)
        self.context = context(cache, self.load)
        self.options = row.options()
        self.provider = calibrated(self.options, self.context).prepare(CPU, Need(answer=True))

    @property
    def data(self) -> EncodedSplit:
        return self.context.splits["train"]

    def batch(self, rows: list[int]) -> Batch:
        return self.data.collate(rows)

    def members(self, batch: Batch) -> np.ndarray:
        """(M, B, C) float64 in the data's label order, straight from Hugging Face models."""
        found = []
        for member in self.options.models:
            made = Teachers(self.row.head)(member)
            with torch.no_grad():
                logits = made.model(**batch["teacher"]).logits.double().numpy()
            found.append(logits[:, [made.spec.head.names.index(name) for name in self.row.head.names]])
        return np.stack(found)


def divergence(head: Head) -> str:
    return "mse" if head.kind == "score" else "forward_kl"
