"""The search corpus is the same everywhere, its grades follow from its words, and its splits share no question."""

import hashlib
import json

import pytest

from mangakd.core.errors import UserError
from mangakd.data.sources import MangaSearch
from mangakd.shop import manga_search
from mangakd.shop.manga_search import CANDIDATES, Copy, Wish, catalogue, make_split
from mangakd.shop.manga_titles import NEW_TITLES

SMALL = {"train": 600, "validation": 200, "test": 300}
DIGESTS = {"train": "0dd529f61f661e80", "validation": "19aee7813ee5755c", "test": "f22a7332c8559051"}


@pytest.fixture(scope="module")
def splits() -> dict[str, tuple]:
    return {name: make_split(name, size) for name, size in SMALL.items()}


@pytest.mark.parametrize("split", SMALL)
def test_the_text_is_the_same_in_every_process(split: str, splits: dict[str, tuple]) -> None:
    """Scores in the docs are of these very texts."""
    assert hashlib.sha256(json.dumps(splits[split]).encode()).hexdigest()[:16] == DIGESTS[split]


def test_a_smaller_split_is_a_prefix(splits: dict[str, tuple]) -> None:
    for whole, part in zip(splits["train"], make_split("train", 50), strict=True):
        assert whole[:50] == part


def test_grades_of_copies() -> None:
    copy = Copy("Akira", 3, {"binding": "hardcover", "language": "German"})
    assert Wish("Akira", 3, {"binding": "hardcover"}).grade(copy) == 2
    assert Wish("Akira", None, {"binding": "hardcover"}).grade(copy) == 2
    assert Wish("Akira", 4, {"binding": "hardcover"}).grade(copy) == 1
    assert Wish("Akira", 3, {"binding": "paperback", "language": "German"}).grade(copy) == 1
    assert Wish("Akira", 4, {"binding": "paperback"}).grade(copy) == 0
    assert Wish("Domu", 3, {"binding": "hardcover"}).grade(copy) == 0


def test_each_question_has_different_pages_and_one_that_fits(splits: dict[str, tuple]) -> None:
    for _, documents, grades in splits.values():
        assert all(len(set(pages)) == len(pages) == CANDIDATES for pages in documents)
        assert all(max(marks) == 2 and min(marks) == 0 for marks in grades)


def test_no_question_is_in_two_splits(splits: dict[str, tuple]) -> None:
    questions = [manga_search.utterance_key(question) for split in splits.values() for question in split[0]]
    assert len(set(questions)) == len(questions)


def test_training_lacks_new_titles_and_held_out_wordings(splits: dict[str, tuple]) -> None:
    def share(split: str) -> float:
        questions = [question.lower() for question in splits[split][0]]
        return sum(any(title.lower() in question for title in NEW_TITLES) for question in questions) / len(questions)

    assert share("train") == 0
    assert share("test") > 0.3
    assert not any("mint condition" in question.lower() for question in splits["train"][0])
    assert any("mint condition" in question.lower() for question in splits["test"][0])


def test_words_alone_find_the_title_and_not_the_copy(splits: dict[str, tuple]) -> None:
    """The page with the most words of the question is the best page for about half of the questions, by chance for a fifth."""
    questions, documents, grades = splits["test"]

    def first(question: str, pages: tuple[str, ...]) -> int:
        words = set(question.lower().replace(".", "").split())
        return max(range(len(pages)), key=lambda i: len(words & set(pages[i].lower().replace(".", "").split())))

    hits = [marks[first(q, pages)] == 2 for q, pages, marks in zip(questions, documents, grades, strict=True)]
    assert 0.35 < sum(hits) / len(hits) < 0.7


def test_titles_have_different_copies() -> None:
    assert all(len({copy.page for copy in copies}) == manga_search.COPIES for copies in catalogue().values())


@pytest.mark.parametrize("count", [2, 5])
def test_a_question_may_keep_fewer_pages(count: int) -> None:
    """The best page among them, in the order of the ten."""
    whole = MangaSearch()._split_rows("validation")
    rows = MangaSearch(documents=count)._split_rows("validation")
    assert rows["positive"] == whole["positive"] and rows["query"] == whole["query"]
    for pages, marks, every, grades in zip(
        rows["documents"], rows["grades"], whole["documents"], whole["grades"], strict=True
    ):
        places = [every.index(page) for page in pages]
        assert len(pages) == count and max(marks) == 2 and places == sorted(places)
        assert marks == tuple(grades[i] for i in places)


@pytest.mark.parametrize("count", [1, 11, 2.5])
def test_a_wrong_number_of_pages_is_refused(count: float) -> None:
    with pytest.raises(UserError, match=rf"data\.documents={count} must be a whole number from 2 to 10"):
        MangaSearch(documents=count).read()


def test_the_source_gives_what_rankers_and_embedding_models_read() -> None:
    rows = MangaSearch()._split_rows("validation")
    assert len(rows) == manga_search.SIZES["validation"]
    assert all(
        pages[marks.index(2)] == page
        for pages, marks, page in zip(rows["documents"], rows["grades"], rows["positive"], strict=True)
    )
