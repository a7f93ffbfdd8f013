"""`Validation`: the scores of one pass over the validation rows, added up batch by batch on the device."""

from functools import partial

import numpy as np
import torch
from torch import Tensor

from mangakd.core.outputs import Batch
from mangakd.core.spec import Head
from mangakd.data.encoded import EncodedSplit
from mangakd.data.loader import EvalBatches
from mangakd.data.sampler import Share
from mangakd.models.encoder import Encoder
from mangakd.tasks.base import Model, Task
from mangakd.tasks.meters import Meters, Tensors
from mangakd.training.validation_texts import ValidationTexts


class Validation:
    """batches: this rank's share of the rows. head: of the models. teacher: its answers (N, …) on all rows, where it has any.

    beside: the teacher itself, for a task that compares the models while both answer. texts: what the student writes for rows.

    All ranks get equally many rows, as every rank must take part in each forward pass of a sharded model. Ranks with a row
    less take one that another rank has too; a row counts once.
    """

    def __init__(
        self, task: Task, head: Head, split: EncodedSplit, batch_size: int, share: Share, teacher: Tensors | None = None,
        beside: Model | None = None, texts: ValidationTexts | None = None,
    ) -> None:  # fmt: skip
        rows = len(split)
        places = np.arange(share.rank, -(-rows // share.world) * share.world, share.world)
        self.batches = EvalBatches(split, batch_size, places % rows)
        self._mask = torch.from_numpy(places < rows)[torch.from_numpy(self.batches.order)]
        self._texts = texts
        self._task, self._teacher, self._columns = task, teacher, list(split.columns)
        self._beside = beside if task.compares else None
        self._new = partial(task.meters, head, together=share.world > 1)
        self._start()

    def _start(self) -> None:
        self._seen = 0
        compared = self._beside if self._task.compares else self._teacher
        self._student: Meters = self._new(teacher=compared is not None)
        self._reference: Meters | None = self._new(teacher=False) if self._teacher is not None else None

    def add(self, student: Model, batch: Batch) -> None:
        """Ask the student about the next batch."""
        answers = self._task.ask(student, batch, self._beside)
        truth = {name: batch[name] for name in self._columns}
        here = slice(self._seen, self._seen + len(next(iter(answers.values()))))
        self._seen = here.stop
        mask, rows = self._mask[here], torch.from_numpy(self.batches.rows[here])
        if not mask.all():
            answers, truth, rows = _some(answers, mask), _some(truth, mask), rows[mask]
        teacher = None
        if self._teacher is not None:
            teacher = {name: each[rows].to(answers[name].device) for name, each in self._teacher.items()}
        self._student.update(answers, truth, teacher)
        if self._reference is not None and teacher is not None:
            self._reference.update(teacher, truth)

    def scores(self) -> dict[str, float]:
        """Of the rows that were added, on all ranks; with the share of the teacher's main score that the student keeps.

        The next row that is added is the first of another pass.
        """
        judge = self._task.judge
        scores = self._student.values()
        if self._reference is not None:
            whole = self._reference.values()[judge.main]
            scores["retention"] = judge.scores[judge.main].retention(scores[judge.main], whole)
        self._start()
        return scores

    def written(self, student: Encoder, epoch: int) -> dict[str, float]:
        """The scores of the student's texts after an epoch, from 0 on; {} where it writes none then. All ranks ask together."""
        return self._texts.scores(student, epoch) if self._texts is not None else {}


def _some(tensors: Tensors, mask: Tensor) -> dict[str, Tensor]:
    return {name: each[mask.to(each.device)] for name, each in tensors.items()}
