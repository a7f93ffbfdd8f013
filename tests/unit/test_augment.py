"""New texts: near in meaning by the embeddings, never one that is known, and the same for the same seed."""

from types import SimpleNamespace

import pytest
import torch

from mangakd.core.errors import UserError
from mangakd.data.augment import Augment, Neighbours

WORDS = ("order", "orders", "refund", "refunds", "##er", "9", "manga")
VECTORS = torch.tensor([[1.0, 0.1], [1.0, 0.0], [-1.0, 0.1], [-1.0, 0.0], [1.0, 0.05], [1.0, 0.05], [0.0, 1.0]])
TEXTS = [f"where is order number {i} of my manga please" for i in range(30)]


@pytest.fixture
def near() -> Neighbours:
    return Neighbours(SimpleNamespace(get_vocab=lambda: {word: i for i, word in enumerate(WORDS)}), VECTORS)


def test_neighbours_are_whole_words_nearest_first(near: Neighbours) -> None:
    assert near.of("Order")[0] == "orders" and near.of("refunds")[0] == "refund"
    assert not {"##er", "9", "order"} & set(near.of("order")), "no pieces, no numbers, not itself"
    assert near.of("unknown") == []


def test_variants_are_new_and_repeatable(near: Neighbours) -> None:
    held_out = {"where is orders number 3 of my manga please"}
    made = Augment(copies=3, seed=1).made(TEXTS, near, held_out)
    assert made == Augment(copies=3, seed=1).made(TEXTS, near, held_out)
    assert made != Augment(copies=3, seed=2).made(TEXTS, near, held_out)
    assert len(made) == len(set(made)) and 80 < len(made) <= 90
    assert not set(made) & {*TEXTS, *held_out}
    assert all(made)


def test_shares_do_what_they_say(near: Neighbours) -> None:
    vocabulary = {word for text in TEXTS for word in text.split()}
    dropped = Augment(copies=1, replace=0, drop=0.3, swap=0).made(TEXTS, near, ())
    assert all(len(text.split()) < 9 for text in dropped) and {w for t in dropped for w in t.split()} <= vocabulary
    replaced = Augment(copies=1, replace=1, drop=0, swap=0).made(TEXTS, near, ())
    assert all(len(text.split()) == 9 for text in replaced)
    assert {text.split()[2] for text in replaced} <= {"orders", "refund", "refunds", "manga"}, "order's neighbours"
    swapped = Augment(copies=1, replace=0, drop=0, swap=1).made(["a b c d"], near, ())
    assert swapped == ["c d a b"]


def test_nothing_new_is_left_out(near: Neighbours) -> None:
    assert Augment(copies=2, replace=0, drop=0, swap=0).made(TEXTS, near, ()) == []
    assert Augment(copies=0).made(TEXTS, near, ()) == []


@pytest.mark.parametrize("wrong", [{"copies": -1}, {"copies": 1.5}, {"replace": 2}, {"drop": -0.1}, {"swap": 1.1}])
def test_wrong_options(wrong: dict[str, float]) -> None:
    with pytest.raises(UserError, match=f"augment.{next(iter(wrong))}="):
        Augment(**wrong)  # type: ignore[arg-type]
