"""`Validation`: the scores of one pass over the validation rows, added up batch by batch on the device."""

import numpy as np
import torch
from torch import Tensor

from mangakd.data.loader import EncodedSplit, EvalBatches
from mangakd.data.sampler import Share
from mangakd.tasks.base import Task
from mangakd.tasks.meters import Meters


class Validation:
    """batches: this rank's share of the rows. teacher: its answers (N, …) on all rows, where it has any.

    All ranks get equally many rows, as every rank must take part in each forward pass of a sharded model. Ranks with a row
    less take one that another rank has too; a row counts once.
    """

    def __init__(
        self, task: Task, split: EncodedSplit, batch_size: int, share: Share, teacher: Tensor | None = None
    ) -> None:
        rows = len(split)
        places = np.arange(share.rank, -(-rows // share.world) * share.world, share.world)
        self.batches = EvalBatches(split, batch_size, places % rows)
        self._mask = torch.from_numpy(places < rows)[torch.from_numpy(self.batches.order)]
        self._task, self._teacher, self._together = task, teacher, share.world > 1
        self._start()

    def _start(self) -> None:
        self._seen = 0
        self._student: Meters | None = None
        self._reference: Meters | None = None

    def add(self, answers: Tensor, targets: Tensor) -> None:
        """The student's answers to the next batch."""
        if self._student is None:
            width, together = answers.shape[-1], self._together
            self._student = self._task.meters(width, self._teacher is not None, together)
            self._reference = self._task.meters(width, False, together) if self._teacher is not None else None
        here = slice(self._seen, self._seen + len(answers))
        self._seen = here.stop
        mask, rows = self._mask[here], torch.from_numpy(self.batches.rows[here])
        if not mask.all():
            answers, targets = (side[mask.to(side.device)] for side in (answers, targets))
            rows = rows[mask]
        teacher = None if self._teacher is None else self._teacher[rows].to(answers.device)
        self._student.update(answers, targets, teacher)
        if self._reference is not None and teacher is not None:
            self._reference.update(teacher, targets)

    def scores(self) -> dict[str, float]:
        """Of the rows that were added, on all ranks; with the share of the teacher's main score that the student keeps.

        The next row that is added is the first of another pass.
        """
        assert self._student is not None  # a pass has a row
        judge = self._task.judge
        scores = self._student.values()
        if self._reference is not None:
            whole = self._reference.values()[judge.main]
            scores["retention"] = judge.scores[judge.main].retention(scores[judge.main], whole)
        self._start()
        return scores
