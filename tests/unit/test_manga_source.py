"""`data=manga_intent`: limits take the same rows for ever, the corpus is made once, and more of it comes without labels."""

import random

import pytest
from data_files import loaded

from mangakd.core.errors import UserError
from mangakd.data import sources
from mangakd.data.source import Corpus
from mangakd.data.sources import MangaIntent
from mangakd.shop import manga_corpus

MANGA_DIGESTS = {  # of train, of validation, of test, for limits on them; change these only with a version of the corpus
    (None, None, None): ["7c13e94b6e57c33e", "c74027696cb7fbe7", "f12ac0179d65772a"],
    (500, 100, 50): ["ef08870b994380f7", "a1df3aa75ade5004", "07984739d82cbb7b"],
    (3000, 200, 300): ["2dc4d291ed25e77b", "5b17613dd7b50b89", "2e4d1c4eb0d13cf9"],
    (25000, 2999, 1): ["7c13e94b6e57c33e", "97301ecdb9ee8212", "fece14f2e4695cac"],
}


def manga(train: int | None, validation: int | None, test: int | None, split_seed: int = 0) -> Corpus:
    return loaded(MangaIntent(train_limit=train, val_limit=validation, test_limit=test, split_seed=split_seed))


@pytest.mark.parametrize("limits", MANGA_DIGESTS)
def test_limits_take_the_same_rows_of_the_corpus_for_ever(limits: tuple[int | None, ...]) -> None:
    corpus = manga(*limits)
    assert [corpus.digest(name) for name in corpus.splits] == MANGA_DIGESTS[limits]


def test_the_corpus_is_made_once_and_each_run_has_rows_of_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    made: list[str] = []
    make = manga_corpus.make_split
    monkeypatch.setattr(manga_corpus, "make_split", lambda split: made.append(split) or make(split, 400))
    sources._manga.cache_clear()
    try:
        first, again = manga(None, None, None), manga(300, 100, 10, split_seed=1)
        first.train["text"].clear()
        whole = manga(None, None, None)
    finally:
        sources._manga.cache_clear()  # of other tests' corpus, which is whole
    assert made == ["train", "validation", "test"]
    assert (whole.train["text"], [name for (name,) in whole.train["label"]]) == make("train", 400)
    taken = sorted(random.Random(1).sample(range(400), 300))
    assert again.train["text"] == [whole.train["text"][i] for i in taken]


def test_the_corpus_has_more_texts_without_labels() -> None:
    few, more = (loaded(MangaIntent(unlabelled=n)) for n in (5, 50))
    assert more.unlabelled["text"][:5] == few.unlabelled["text"] and 45 < len(more.unlabelled) <= 50
    known = {text for rows in more.splits.values() for text in rows["text"]}
    assert not known & set(more.unlabelled["text"])
    with pytest.raises(UserError, match=r"data\.unlabelled=-1 must be a whole number from 0 to 200000"):
        loaded(MangaIntent(unlabelled=-1))
