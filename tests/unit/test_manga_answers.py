"""The shop's answers are the same everywhere, follow from their questions and passages, and no question is in two splits."""

import hashlib
import json
import re

import pytest

from mangakd.data.sources import MangaAnswers
from mangakd.shop.manga_answers import SIZES, Answer, make_split
from mangakd.shop.manga_corpus import utterance_key
from mangakd.shop.manga_titles import NEW_TITLES

DIGESTS = {"train": "14b7d7770ae5734d", "validation": "f9eb653fb1f19337", "test": "e12f47b225aea9d8"}


@pytest.fixture(scope="module")
def splits() -> dict[str, list[Answer]]:
    return {name: make_split(name) for name in SIZES}


@pytest.mark.parametrize("split", SIZES)
def test_the_text_is_the_same_in_every_process(split: str, splits: dict[str, list[Answer]]) -> None:
    """Scores in the docs are of these very texts."""
    assert len(splits[split]) == SIZES[split] and make_split(split, 20) == splits[split][:20]
    assert hashlib.sha256(json.dumps(splits[split]).encode()).hexdigest()[:16] == DIGESTS[split]


def test_no_question_is_in_two_splits(splits: dict[str, list[Answer]]) -> None:
    keys = {name: {utterance_key(each.prompt) for each in answers} for name, answers in splits.items()}
    assert (
        not keys["train"] & keys["test"]
        and not keys["train"] & keys["validation"]
        and not keys["test"] & keys["validation"]
    )


def test_an_answer_says_what_its_passage_says(splits: dict[str, list[Answer]]) -> None:
    """Dates and carriers of orders, months of codes, volumes of copies."""
    orders = [each for each in splits["train"] if each.context and ": handed to" in each.context[0]]
    assert len(orders) > 100
    for each in orders:
        found = re.fullmatch(r"(.+): handed to (.+) on (.+), due (.+)\.", each.context[0])
        assert found and found[2] in each.answer and found[4] in each.answer
    pages = [
        each
        for each in splits["train"]
        if re.search(r"(Yes, we have|We do:|You are in|Sorry, we|Not quite)", each.answer)
    ]
    assert len(pages) > 200
    missing = [each for each in pages if ", but not " in each.answer or ", though not " in each.answer]
    assert 0.2 < len(missing) / len(pages) < 0.7
    for each in pages:
        title = each.context[0].partition(". ")[0]
        assert title in each.answer


def test_a_fact_of_the_shop_is_always_the_same(splits: dict[str, list[Answer]]) -> None:
    fees: dict[str, set[str]] = {}
    for each in splits["train"]:
        if found := re.search(
            r"[Ss]hip(?:ping)? to ([A-Za-z ]+?)(?: costs|:| within).*?(\d+\.\d\d) euros", each.answer
        ):
            fees.setdefault(found[1], set()).add(found[2])
    assert len(fees) > 8 and all(len(each) == 1 for each in fees.values())


def test_training_lacks_new_titles(splits: dict[str, list[Answer]]) -> None:
    def share(split: str) -> float:
        named = [any(title.lower() in each.prompt.lower() for title in NEW_TITLES) for each in splits[split]]
        return sum(named) / len(named)

    assert share("train") == 0 and share("test") > 0.05


def test_the_source_has_the_columns_of_answers() -> None:
    rows = MangaAnswers().read()["validation"]
    assert rows.columns.keys() == {"prompt", "context", "answer"} and len(rows) == SIZES["validation"]
