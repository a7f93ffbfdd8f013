"""Order, padding and resuming of batches; answers back in the rows' order."""

import gc
import multiprocessing
import os
import threading
from collections.abc import Iterable
from pathlib import Path

import numpy as np
import pytest
import torch
from contract.tiny_models import WORDS, split, texts, tokenizer

from mangakd.core.outputs import Batch
from mangakd.data.encoded import EncodedSplit, Sides
from mangakd.data.gather import gather, to_device
from mangakd.data.loader import EvalBatches, TrainLoader
from mangakd.data.sampler import BucketSampler, Share
from mangakd.data.steps import RowSteps
from mangakd.data.tokenising import tokenise
from mangakd.tasks.classification.encode import labelled

ROWS = 53


@pytest.fixture
def data(tmp_path: Path) -> EncodedSplit:
    return split(ROWS, tmp_path)


def keys(batches: Iterable[Batch]) -> list[list[int]]:
    return [batch["key"].tolist() for batch in batches]


# --- order -----------------------------------------------------------------------------------------------------------


def test_order_is_a_function_of_seed_and_epoch_alone(data: EncodedSplit) -> None:
    lengths, units = data.student.lengths, data.units
    first = BucketSampler(lengths, RowSteps(8), 3, units, epoch=2).order()
    np.random.seed(99)
    torch.manual_seed(99)
    state = torch.get_rng_state()
    assert BucketSampler(lengths, RowSteps(8), 3, units, epoch=2).order() == first
    assert first not in (
        BucketSampler(lengths, RowSteps(8), 3, units, epoch=1).order(),
        BucketSampler(lengths, RowSteps(8), 4, units, epoch=2).order(),
    )
    list(TrainLoader(data, RowSteps(8), seed=3))
    assert torch.equal(torch.get_rng_state(), state), "the loader drew from the generator that dropout uses"


def test_every_row_comes_once_each_epoch_and_epochs_differ(data: EncodedSplit) -> None:
    loader = TrainLoader(data, RowSteps(8), seed=0)
    epochs = [keys(loader) for _ in range(3)]
    assert len(loader) == 7
    for epoch in epochs:
        seen = [key for batch in epoch for key in batch]
        assert sorted(seen) == sorted(data.teacher.keys.tolist()) and len(set(seen)) == ROWS
        assert sorted(map(len, epoch)) == [5, *[8] * 6]
    assert epochs[0] != epochs[1] != epochs[2]
    assert keys(TrainLoader(data, RowSteps(8), seed=0)) == epochs[0]


def test_bucketing_pads_less_than_random_batches() -> None:
    rng = np.random.default_rng(0)
    lengths = np.minimum(rng.geometric(0.08, 4000) + 2, 64)
    sampler = BucketSampler(lengths, RowSteps(32), 0, {})

    def padding(batches: Iterable[Iterable[int]]) -> int:
        return sum(lengths[list(b)].max() * len(list(b)) - lengths[list(b)].sum() for b in batches)

    bucketed, random = padding(sampler.order()), padding(rng.permutation(4000).reshape(-1, 32))
    assert bucketed < random / 5
    first = [lengths[b].mean() for b in sampler.order()[:20]]
    assert first != sorted(first), "batches must not come in the order of their lengths"


# --- resuming --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("workers", [0, 2])
def test_a_saved_loader_goes_on_with_exactly_the_remaining_batches(data: EncodedSplit, workers: int) -> None:
    whole = TrainLoader(data, RowSteps(8), seed=1)
    epochs = [keys(whole) for _ in range(3)]
    stopped = TrainLoader(data, RowSteps(8), seed=1, workers=workers)
    keys(stopped)
    passing, seen = iter(stopped), []
    for _ in range(3):
        seen.append(next(passing)["key"].tolist())
    state = stopped.state_dict()
    resumed = TrainLoader(data, RowSteps(8), seed=1, workers=workers)
    resumed.load_state_dict(state)
    assert seen == epochs[1][:3]
    assert keys(resumed) == epochs[1][3:]
    assert keys(resumed) == epochs[2]


def test_a_loader_saved_after_its_last_batch_starts_the_next_epoch(data: EncodedSplit) -> None:
    whole = TrainLoader(data, RowSteps(8), seed=1)
    first, second = keys(whole), keys(whole)
    stopped = TrainLoader(data, RowSteps(8), seed=1)
    passing = iter(stopped)
    assert [next(passing)["key"].tolist() for _ in range(len(stopped))] == first
    resumed = TrainLoader(data, RowSteps(8), seed=1)
    resumed.load_state_dict(
        stopped.state_dict()
    )  # the pass was never closed: a trainer that knows the length stops here
    assert keys(resumed) == second


def test_a_loader_goes_on_under_another_share(data: EncodedSplit) -> None:
    """Two micro-batches of half a step where there was one of a whole: the same rows remain."""
    first = TrainLoader(data, RowSteps(8), seed=1)
    passing = iter(first)
    for _ in range(3):
        next(passing)
    other = TrainLoader(data, RowSteps(8), 1, Share(accumulate=2))
    other.load_state_dict(first.state_dict())
    rest = [sorted(batch) for batch in keys(passing)]
    halves = keys(other)
    assert [sorted(halves[i] + halves[i + 1]) for i in range(0, len(halves), 2)] == rest


# --- threads ---------------------------------------------------------------------------------------------------------


class Native:
    """Like a library's object with threads of its own: it must be freed in the process that made it, and here only by gc."""

    def __init__(self) -> None:
        self._owner, self._cycle = os.getpid(), self

    def __del__(self) -> None:
        if os.getpid() != self._owner:
            os.abort()


class Collecting(EncodedSplit):
    """Collects garbage while it makes a batch."""

    def collate(self, positions: list[int]) -> Batch:
        gc.collect()
        return super().collate(positions)


def test_batches_are_made_in_this_process(data: EncodedSplit) -> None:
    """A forked process would free other libraries' objects that it holds copies of."""
    split = Collecting(data.sides, data.columns)
    gc.collect()
    gc.disable()
    try:
        Native()  # garbage from here on
        batches = []
        for batch in TrainLoader(split, RowSteps(20), seed=1, workers=2):
            batches.append(batch)
            assert not multiprocessing.active_children()
    finally:
        gc.enable()
    assert keys(batches) == keys(TrainLoader(data, RowSteps(20), seed=1))
    assert all(batch["teacher"] is batch["student"] for batch in batches), "one tokenizer: one set of tensors"


def test_threads_end_with_their_pass(data: EncodedSplit) -> None:
    before = set(threading.enumerate())

    def threads() -> set[threading.Thread]:
        return set(threading.enumerate()) - before

    passing = iter(TrainLoader(data, RowSteps(8), seed=1, workers=2))
    next(passing)
    left_early = threads()
    del passing
    passing = iter(TrainLoader(data, RowSteps(ROWS), seed=1, workers=2))
    next(passing)  # the last: a trainer that knows the length asks for no more
    assert left_early
    for thread in left_early | threads():
        thread.join(60)
        assert not thread.is_alive()


def test_an_error_of_a_thread_reaches_the_consumer(data: EncodedSplit, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(EncodedSplit, "collate", lambda *_: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        next(iter(TrainLoader(data, RowSteps(8), seed=1, workers=2)))


# --- batches ---------------------------------------------------------------------------------------------------------


def test_a_batch_holds_the_rows_it_was_asked_for(data: EncodedSplit) -> None:
    rows = [7, 0, 31]
    batch = data.collate(rows)
    assert batch["teacher"] is batch["student"], "one tokenizer: one set of tensors"
    assert batch["labels"].tolist() == data.columns["labels"][rows].tolist()
    assert batch["key"].tolist() == data.teacher.keys[rows].tolist()
    assert batch["student"]["input_ids"].shape[1] == data.student.lengths[rows].max()
    moved = to_device(batch, torch.device("cpu"))
    assert moved["teacher"] is moved["student"] and set(moved) == set(batch)
    for i, text in enumerate(np.array(texts(ROWS))[rows]):
        mask = batch["student"]["attention_mask"][i].bool()
        assert (
            batch["student"]["input_ids"][i][mask].tolist()
            == tokenizer()(text, truncation=True, max_length=16)["input_ids"]
        )
        assert (batch["student"]["input_ids"][i][~mask] == 0).all()


def test_two_tokenizers_make_two_sides(tmp_path: Path) -> None:
    one = tokenise(texts(20), tokenizer(), 16, tmp_path)
    other = tokenise(texts(20), tokenizer(WORDS[:20]), 9, tmp_path)
    batch = labelled(Sides(other, one, 0, 0), np.zeros(20, np.int64)).collate([4, 2])
    assert batch["key"].tolist() == one.keys[[4, 2]].tolist(), "records are found by the teacher's tokens"
    assert batch["student"]["input_ids"].shape[1] == other.lengths[[4, 2]].max()
    assert batch["teacher"]["input_ids"].shape[1] == one.lengths[[4, 2]].max()


def test_gather_puts_answers_into_the_rows_order(data: EncodedSplit) -> None:
    def answer(batch: Batch) -> torch.Tensor:
        return batch["labels"][:, None].double() * torch.tensor([1.0, 2.0])

    told: list[int] = []
    found = gather(answer, EvalBatches(data, 8), torch.device("cpu"), told.append)
    assert found.dtype == torch.float32 and sum(told) == ROWS
    labels = data.columns["labels"]
    assert found[:, 0].tolist() == labels.tolist() and found[:, 1].tolist() == (2 * labels).tolist()
    some = np.array([40, 3, 17, 5, 29, 0, 11, 2, 50, 8])
    chosen = gather(answer, EvalBatches(data, 4, some), torch.device("cpu"))
    assert chosen[:, 0].tolist() == labels[some].tolist()
    assert keys(EvalBatches(data, 8)) == keys(EvalBatches(data, 8))
    widths = [batch["student"]["input_ids"].shape[1] for batch in EvalBatches(data, 8)]
    assert widths == sorted(widths)
