"""Padded batches of a tokenised split: for training, in a loader that can stop and go on anywhere, and for evaluation."""

from collections.abc import Iterator, Sequence
from functools import cached_property

import numpy as np
import torch
from torch import Tensor

from mangakd.core.outputs import Batch, each_tensor
from mangakd.data.ahead import ahead
from mangakd.data.sampler import BucketSampler, MicroBatch, Share, Units
from mangakd.data.tokens import Tokens, concatenated

NO_LABEL = -100  # as in losses/hard_label


class EncodedSplit:
    """Micro-batches in, padded batches out. `teacher` is `student` again when one tokenizer serves both.

    labels: (N) int64 class ids or (N, C) float32.
    """

    def __init__(
        self, student: Tokens, teacher: Tokens, labels: np.ndarray, student_pad: int, teacher_pad: int
    ) -> None:
        self.student, self.teacher, self.labels = student, teacher, labels
        self.pads = (student_pad, teacher_pad)

    def __len__(self) -> int:
        return len(self.student)

    def __getitem__(self, micro: MicroBatch) -> Batch:
        return {**self.collate(micro.rows), "scale": micro.scale}

    @cached_property
    def units(self) -> Units:
        """What losses count, for each row (see losses/base)."""
        lengths = self.student.lengths.astype(np.int64)
        labelled = (self.labels != NO_LABEL).reshape(len(self), -1).sum(1)
        return {"rows": np.ones_like(lengths), "tokens": lengths, "cells": lengths**2, "labels": labelled}

    def collate(self, positions: list[int]) -> Batch:
        rows = np.asarray(positions)
        student = _inputs(self.student, rows, self.pads[0])
        teacher = student if self.teacher is self.student else _inputs(self.teacher, rows, self.pads[1])
        return {
            "student": student,
            "teacher": teacher,
            "labels": torch.from_numpy(self.labels[rows]),
            "key": torch.from_numpy(self.teacher.keys[rows]),
        }


def joined(splits: Sequence[EncodedSplit]) -> EncodedSplit:
    """Several splits one after the other."""
    if len(splits) == 1:
        return splits[0]
    student = concatenated([split.student for split in splits])
    shared = all(split.teacher is split.student for split in splits)
    teacher = student if shared else concatenated([split.teacher for split in splits])
    return EncodedSplit(student, teacher, np.concatenate([split.labels for split in splits]), *splits[0].pads)


def _inputs(tokens: Tokens, rows: np.ndarray, pad: int) -> dict[str, Tensor]:
    return {name: torch.from_numpy(values) for name, values in tokens.inputs(rows, pad).items()}


class TrainLoader:
    """One epoch a pass, as micro-batches of this process's share.

    workers: threads that make batches ahead of the training step; 0 makes each batch when it is asked for. Its state is
    (epoch, steps given out), so a resumed run sees each remaining step once, on any number of processes.
    """

    def __init__(
        self, split: EncodedSplit, step_rows: int, seed: int, share: Share | None = None, workers: int = 0,
        pin_memory: bool = False,
    ) -> None:  # fmt: skip
        share = share or Share()
        self._sampler = BucketSampler(split.student.lengths, step_rows, seed, split.units, share)
        self._accumulate = share.accumulate
        self._given = 0  # micro-batches
        self._split, self._workers = split, workers
        self._pin = pin_memory and torch.cuda.is_available()

    def __len__(self) -> int:
        return len(self._sampler)

    def __iter__(self) -> Iterator[Batch]:
        self._sampler.start = self._given // self._accumulate
        for batch in ahead(self._split.__getitem__, self._sampler, self._workers, "loader"):
            self._given += 1
            if self._given == len(self):
                # Before the last batch is handed over: a trainer that knows the length never asks for one more.
                self._sampler.epoch, self._given = self._sampler.epoch + 1, 0
            yield each_tensor(batch, Tensor.pin_memory) if self._pin else batch

    def state_dict(self) -> dict[str, int]:
        return {"epoch": self._sampler.epoch, "steps": self._given // self._accumulate}

    def load_state_dict(self, state: dict[str, int]) -> None:
        self._sampler.epoch, self._given = state["epoch"], state["steps"] * self._accumulate


class EvalBatches:
    """All rows, or those at `positions`, once, sorted by length. order: batch order → place among the positions."""

    def __init__(self, split: EncodedSplit, batch_size: int, positions: np.ndarray | None = None) -> None:
        chosen = np.arange(len(split)) if positions is None else positions
        self.order = np.argsort(split.teacher.lengths[chosen], kind="stable")
        self.rows = chosen[self.order]
        self._split, self._batch_size = split, batch_size

    def __len__(self) -> int:
        return -(-len(self.rows) // self._batch_size)

    def __iter__(self) -> Iterator[Batch]:
        for i in range(0, len(self.rows), self._batch_size):
            yield self._split.collate(self.rows[i : i + self._batch_size].tolist())
