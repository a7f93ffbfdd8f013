"""Padded batches of a tokenised split: for training, in a loader that can stop and go on anywhere, and for evaluation."""

from collections.abc import Iterator

import numpy as np
import torch
from torch import Tensor

from mangakd.core.outputs import Batch, each_tensor
from mangakd.data.ahead import ahead
from mangakd.data.encoded import EncodedSplit
from mangakd.data.sampler import BucketSampler, Share
from mangakd.data.steps import StepSize


class TrainLoader:
    """One epoch a pass, as micro-batches of this process's share.

    workers: threads that make batches ahead of the training step; 0 makes each batch when it is asked for. Its state is
    (epoch, steps given out), so a resumed run sees each remaining step once, on any number of processes.
    """

    def __init__(
        self, split: EncodedSplit, step: StepSize, seed: int, share: Share | None = None, workers: int = 0,
        pin_memory: bool = False,
    ) -> None:  # fmt: skip
        share = share or Share()
        self._sampler = BucketSampler(split.row_tokens, step, seed, split.units, share, targets=split.decoder_tokens)
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
        places = np.arange(len(split)) if positions is None else positions
        self.order = np.argsort(split.lengths(split.teacher)[places], kind="stable")
        self.rows = places[self.order]
        self._split, self._batch_size = split, batch_size

    def __len__(self) -> int:
        return -(-len(self.rows) // self._batch_size)

    def __iter__(self) -> Iterator[Batch]:
        for i in range(0, len(self.rows), self._batch_size):
            yield self._split.collate(self.rows[i : i + self._batch_size])
