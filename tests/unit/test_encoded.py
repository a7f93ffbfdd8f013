"""Rows of several sequences, on a made-up split of pairs: what a batch holds of them, and what losses count."""

from itertools import pairwise

import numpy as np
import pytest
import torch

from mangakd.core.errors import UserError
from mangakd.core.outputs import each_tensor
from mangakd.data.encoded import EncodedSplit, Sides, joined
from mangakd.data.gather import gather_all
from mangakd.data.loader import EvalBatches, TrainLoader
from mangakd.data.sampler import Share
from mangakd.data.steps import RowSteps, TokenSteps
from mangakd.data.tokens import Tokens
from mangakd.losses.hard_label import HardLabelLoss
from mangakd.losses.loss_set import LossSet
from mangakd.training.fit import _check_units

COUNTS = [2, 1, 3, 2, 1, 4]  # documents of each query
FIRST = np.concatenate([[0], np.cumsum(COUNTS)])
GRADES = np.arange(6, dtype=np.float32)


def tokens(seed: int) -> Tokens:
    rng = np.random.default_rng(seed)
    lengths = rng.integers(2, 9, FIRST[-1])
    ids = rng.integers(1, 50, lengths.sum()).astype(np.int32)
    return Tokens(ids, np.cumsum(lengths) - lengths, lengths, np.arange(FIRST[-1]) + 100 * seed)


def pairs(seed: int = 1) -> EncodedSplit:
    return EncodedSplit(
        Sides(tokens(seed), tokens(seed + 1), 0, 0), {"grade": GRADES}, {"graded": np.array(COUNTS)}, FIRST
    )


def test_a_batch_holds_all_sequences_of_its_rows() -> None:
    split, rows = pairs(), [3, 0, 5]
    batch = split.collate(rows)
    assert batch["first"].tolist() == [0, 2, 4, 8] and batch["grade"].tolist() == [3, 0, 5]
    owned = [i for row in rows for i in range(FIRST[row], FIRST[row + 1])]
    assert batch["key"].tolist() == split.teacher.keys[owned].tolist()
    for side, read in (("student", split.student), ("teacher", split.teacher)):
        for place, i in enumerate(owned):
            mask = batch[side]["attention_mask"][place].bool()
            assert batch[side]["input_ids"][place][mask].tolist() == read[i].tolist()
    moved = each_tensor(batch, lambda tensor: tensor + 0)
    assert torch.equal(moved["first"], batch["first"])


def test_some_rows_of_a_split_make_the_same_batches() -> None:
    split, rows = pairs(), np.array([3, 0, 5])
    split.owners = np.arange(10, 16)
    some = split.take(rows)
    assert len(some) == 3 and some.owners is not None and some.owners.tolist() == [13, 10, 15]
    assert some.units["graded"].tolist() == some.units["sequences"].tolist() == [2, 2, 4]
    one, other = some.collate([2, 0]), split.collate([5, 3])
    for name in ("first", "grade", "key"):
        assert torch.equal(one[name], other[name])
    assert torch.equal(one["student"]["input_ids"], other["student"]["input_ids"])


def test_losses_count_what_a_row_holds() -> None:
    split = pairs()
    owned = [split.student.lengths[a:b] for a, b in pairwise(FIRST)]
    assert split.units["rows"].tolist() == [1] * 6 and split.units["graded"].tolist() == COUNTS
    assert split.units["sequences"].tolist() == COUNTS
    assert split.units["tokens"].tolist() == [each.sum() for each in owned]
    assert split.units["cells"].tolist() == [(each**2).sum() for each in owned]
    assert split.lengths(split.student).tolist() == [each.max() for each in owned]


def test_no_row_takes_more_than_its_tokens_in_a_batch() -> None:
    """Of TokenSteps: rows of up to 4 documents, as if each had 4."""
    split, step = pairs(), TokenSteps(70, 1)
    assert split.row_tokens.tolist() == [4 * length for length in split.lengths(split.student)]
    shapes = [batch["student"]["input_ids"].shape for batch in TrainLoader(split, step, 0)]
    assert len(shapes) == step.count(split.row_tokens) < 6 and max(rows * width for rows, width in shapes) <= 70


def test_every_row_is_trained_on_and_asked_once() -> None:
    split = pairs()
    for share in (Share(), Share(0, 2), Share(1, 2)):
        rows = [row for batch in TrainLoader(split, RowSteps(2), 0, share) for row in batch["grade"].tolist()]
        assert len(rows) == len(set(rows)) == 6 // share.world
    answers = EvalBatches(split, 4)
    sums = gather_all(
        lambda batch: {"grade": batch["grade"], "pairs": batch["first"].diff()}, answers, torch.device("cpu")
    )
    assert sums["grade"].tolist() == GRADES.tolist() and sums["pairs"].tolist() == COUNTS


def test_a_teacher_answers_sequence_by_sequence() -> None:
    each = pairs().sequences
    assert len(each) == FIRST[-1] and "first" not in each.collate([4, 2]) and each.sequences is each
    teacher = pairs().of_teacher
    assert torch.equal(teacher.collate([1])["student"]["input_ids"], pairs().collate([1])["teacher"]["input_ids"])
    assert teacher.columns.keys() == {"grade"} and teacher.units["graded"].tolist() == COUNTS


def test_joined_splits_keep_their_rows() -> None:
    ones = np.ones(FIRST[-1], np.float32)
    single = EncodedSplit(Sides(tokens(3), tokens(4), 0, 0), {"grade": ones}, {"graded": ones.astype(int)})
    both = joined([pairs(), single])
    assert len(both) == 6 + FIRST[-1] and both.first is not None and both.first[-1] == 2 * FIRST[-1]
    batch, alone = both.collate([2, 8]), pairs().collate([2])
    assert batch["first"].tolist() == [0, 3, 4] and batch["grade"].tolist() == [2, 1]
    assert torch.equal(batch["key"][:3], alone["key"]) and batch["key"][3] == single.teacher.keys[2]
    assert both.units["graded"].tolist() == [*COUNTS, *[1] * FIRST[-1]]


@pytest.mark.parametrize(
    ("columns", "first"),
    [({"grade": GRADES[:5]}, FIRST), ({}, FIRST - 1), ({}, np.array([0, 2, 2, FIRST[-1]])), ({"grade": GRADES}, None)],
)
def test_columns_and_sequences_must_fit(columns: dict[str, np.ndarray], first: np.ndarray | None) -> None:
    with pytest.raises(ValueError, match=r"rows|own a sequence"):
        EncodedSplit(Sides(tokens(1), tokens(2), 0, 0), columns, None, first)


def test_a_loss_whose_unit_the_task_does_not_count_is_refused() -> None:
    losses = LossSet({"hard": HardLabelLoss()})
    with pytest.raises(UserError, match=r"losses\.hard counts in labels, which the task does not count"):
        _check_units(pairs(), losses)
    losses.callbacks["hard"].unit = "graded"
    _check_units(pairs(), losses)
