"""The shop's conversations are the same everywhere; rewrites stand alone, and no rewrite of the test is in the training data."""

import hashlib
import json
import re

import pytest

from mangakd.data.bm25 import Bm25
from mangakd.data.sources import MangaRewrites
from mangakd.shop.manga_rewrites import SIZES, Turn, make_split
from mangakd.shop.manga_titles import NEW_TITLES

DIGESTS = {"train": "047502f4d667be92", "validation": "a0ff3b8ac0898113", "test": "e601dc999e7effcb"}
SUBJECTS = {"volume", "order", "shop", "country", "code"}


@pytest.fixture(scope="module")
def splits() -> dict[str, list[Turn]]:
    return {name: make_split(name) for name in SIZES}


@pytest.mark.parametrize("split", SIZES)
def test_the_text_is_the_same_in_every_process(split: str, splits: dict[str, list[Turn]]) -> None:
    """Scores in the docs are of these very texts."""
    assert len(splits[split]) == SIZES[split] and make_split(split, 20) == splits[split][:20]
    assert hashlib.sha256(json.dumps(splits[split]).encode()).hexdigest()[:16] == DIGESTS[split]


def test_no_rewrite_and_no_answer_is_in_two_splits(splits: dict[str, list[Turn]]) -> None:
    texts = {name: {text for turn in turns for text in (*turn.rewrites, turn.answer)} for name, turns in splits.items()}
    assert not texts["train"] & texts["test"] and not texts["train"] & texts["validation"]
    assert not texts["test"] & texts["validation"]
    assert all({turn.subject for turn in turns} == SUBJECTS for turns in splits.values())


def test_a_history_is_what_was_said_before(splits: dict[str, list[Turn]]) -> None:
    """The turns of a conversation follow each other, and its first one stands alone."""
    before: Turn | None = None
    for turn in splits["train"]:
        if before is None or turn.conversation != before.conversation:
            assert turn.history == () and turn.utterance == turn.rewrites[0]
        else:
            assert turn.history == (*before.history, before.utterance, before.answer)
        before = turn
    assert max(len(turn.history) for turn in splits["train"]) == 4


def test_a_rewrite_names_what_the_utterance_leaves_out(splits: dict[str, list[Turn]]) -> None:
    """The numbers and names of a rewrite are in the conversation, and most utterances lack them."""
    later = [turn for turn in splits["test"] if turn.history]
    named = [re.findall(r"\d+|[A-Z]\w+", turn.rewrites[0]) for turn in later]
    said = [" ".join((*turn.history, turn.utterance)).lower() for turn in later]
    assert all(all(name.lower() in text for name in names) for names, text in zip(named, said, strict=True))
    lacks = [
        any(name.lower() not in turn.utterance.lower() for name in names)
        for names, turn in zip(named, later, strict=True)
    ]
    assert sum(lacks) / len(later) > 0.6
    assert {len(turn.rewrites) for turn in splits["train"]} == {1, 3}


def test_a_search_with_the_rewrite_finds_the_answer(splits: dict[str, list[Turn]]) -> None:
    """And one with the utterance rarely does."""
    pytest.importorskip("bm25s")
    later = [turn for turn in splits["test"] if turn.history]
    answers = [*dict.fromkeys(turn.answer for turn in splits["test"])]
    index = Bm25(answers)

    def recall(queries: list[str]) -> float:
        best = [index.best(query, 10) for query in queries]
        return sum(answers.index(turn.answer) in found for turn, found in zip(later, best, strict=True)) / len(later)

    assert recall([turn.rewrites[0] for turn in later]) > 0.9
    assert recall([turn.utterance for turn in later]) < 0.6


def test_training_lacks_new_titles(splits: dict[str, list[Turn]]) -> None:
    def share(split: str) -> float:
        named = [any(title in turn.rewrites[0] for title in NEW_TITLES) for turn in splits[split]]
        return sum(named) / len(named)

    assert share("train") == 0 and share("test") > 0.02


def test_the_source_has_the_columns_of_rewriting() -> None:
    rows = MangaRewrites().read()["validation"]
    assert rows.columns.keys() == {"conversation", "history", "utterance", "rewrite", "answer", "source"}
    assert len(rows) == SIZES["validation"]
