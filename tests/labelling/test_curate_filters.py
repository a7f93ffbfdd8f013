"""Each filter of curate takes the rows that it is for, and leaves those beside them."""

import sys

import pytest
from conftest import REPO
from omegaconf import OmegaConf

from mangakd.core.errors import UserError
from mangakd.labelling.curate.filters.base import Filter
from mangakd.labelling.curate.filters.duplicates import Duplicates, normalised
from mangakd.labelling.curate.filters.empty import Empty
from mangakd.labelling.curate.filters.ended import Ended
from mangakd.labelling.curate.filters.language import Language
from mangakd.labelling.curate.filters.length import Length
from mangakd.labelling.curate.filters.near_duplicates import NearDuplicates
from mangakd.labelling.curate.filters.overlap import Overlap
from mangakd.labelling.curate.filters.refusals import Refusals
from mangakd.labelling.curate.record import Record

sys.path.insert(0, str(REPO / "benchmarks"))
from curate_texts import ANSWERS, LANGUAGES, REFUSALS


def record(answer: str, prompt: str = "", number: int = 1, rest: str = "", **cells: object) -> Record:
    return Record(number, cells, prompt, answer, rest)


def refusals() -> Refusals:
    patterns = OmegaConf.to_container(OmegaConf.load(REPO / "conf" / "curate.yaml").filters.refusals.patterns)
    return Refusals(patterns)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("cells", "reason"),
    [
        ({"ended": True}, None),
        ({"ended": False}, "ended is false"),
        ({"ended": "false"}, "ended is false"),  # as CSV has it
        ({"finish_reason": "stop"}, None),
        ({"finish_reason": "length"}, "finish_reason is length"),
        ({"finish_reason": "content_filter"}, "finish_reason is content_filter"),
        ({"stop_reason": "end_turn"}, None),
        ({"stop_reason": "max_tokens"}, "stop_reason is max_tokens"),
        ({}, None),
    ],
)
def test_answers_that_were_cut(cells: dict[str, object], reason: str | None) -> None:
    assert Ended().reason(record("an answer", **cells)) == reason


@pytest.mark.parametrize(
    ("answer", "empty"),
    [("", True), (" \n\u3000", True), ("…", True), ("\u200b。", True), ("👍", False), ("5", False), ("はい", False)],
)
def test_answers_without_a_word(answer: str, empty: bool) -> None:
    assert (Empty().reason(record(answer)) is not None) is empty


def test_refusals_are_found_and_apologies_of_a_shop_are_not() -> None:
    each = refusals()
    assert len(REFUSALS) == 22 and [text for text in REFUSALS if each.reason(record(text)) is None] == []
    assert len(ANSWERS) == 22 and [text for text in ANSWERS if each.reason(record(text)) is not None] == []
    assert each.reason(record("I’m sorry, but I can’t help with that.")) == "english: I can't help"
    assert each.reason(record("A" * 400 + REFUSALS[0])) is None, "an answer that quotes one later is an answer"


def test_a_pattern_that_is_none() -> None:
    with pytest.raises(
        UserError, match=r"filters\.refusals\.patterns\.english has '\(', which is no regular expression"
    ):
        Refusals({"english": ["("]})


def test_languages() -> None:
    each = Language(["en", "ja"])
    for language, texts in LANGUAGES.items():
        for text in texts:
            reason = each.reason(record(text))
            assert (reason is None) is (language in ("en", "ja")), text
    german = LANGUAGES["de"][0]
    assert str(each.reason(record(german))).startswith("de (0.9") or str(each.reason(record(german))) == "de (1.00)"
    assert Language(["en", "ja", "de"]).reason(record(german)) is None
    assert each.reason(record("Danke schön, ja.")) is None, "14 letters are too few to tell"
    assert each.reason(record("네, 재고가 있습니다.")) is None, "8 letters that count as two are too few, too"
    assert each.reason(record("네, 그 책은 이층에 재고가 있습니다.")) is not None
    assert (
        each.reason(record("https://beispiel.de/ihre-bestellung/wird-morgen-verschickt <EMAIL_1> 12345 67890")) is None
    )


def test_a_language_that_is_none() -> None:
    with pytest.raises(UserError, match=r"filters\.language\.languages has 'jp'; a language is one of .*did you mean"):
        Language(["jp"])


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        ({}, None),
        ({"characters": [None, 20]}, "23 characters, the most is 20"),
        ({"characters": [24, None]}, "23 characters, the least is 24"),
        ({"words": [None, 4]}, "5 words, the most is 4"),
        ({"words": [5, 5]}, None),
        ({"tokens": [10, 20]}, "7 tokens, the least is 10"),
        ({"ratio": [None, 2]}, "2.3 ratio, the most is 2"),
        ({"ratio": [2.3, 2.3]}, None),
    ],
)
def test_lengths(options: dict[str, list[float]], reason: str | None) -> None:
    row = record("two books, one of which.", "ten signs.", tokens=7)
    row = record(row.answer[:23], "ten signs.", tokens=7)
    assert Length(**options).reason(row) == reason  # type: ignore[arg-type]


def test_japanese_words_are_pairs_of_characters() -> None:
    assert Length(words=[4, 4]).reason(record("ありがとう")) is None


@pytest.mark.parametrize("bounds", [[1], [2, 1], ["a", None], 5, [True, 2]])
def test_bounds_that_are_none(bounds: object) -> None:
    with pytest.raises(UserError, match=r"filters\.length\.ratio="):
        Length(ratio=bounds)  # type: ignore[arg-type]


def test_normalised() -> None:
    assert normalised("  Ｈｅｌｌｏ,\u3000WORLD!! ") == "hello world"
    assert normalised("ｶﾞ。") == "ガ"


def test_duplicates_name_the_first_row() -> None:
    each = Duplicates()
    assert each.reason(record("It ships today.", "Where?", 3)) is None
    assert each.reason(record("it  SHIPS today", "where", 5)) == "equal to row 3"
    assert each.reason(record("It ships now.", "Where?", 6)) is None
    assert each.reason(record("It ships today.", "Where?", 7, rest="another label")) is None
    prompts = Duplicates("prompt")
    assert prompts.reason(record("a", "Where?", 1)) is None
    assert prompts.reason(record("b", "where", 2)) == "equal to row 1"


def test_a_wrong_part() -> None:
    for make in (Duplicates, NearDuplicates):
        with pytest.raises(UserError, match="of=label must be one of row, prompt, answer"):
            make("label")


def test_filters_say_their_settings_as_plain_values() -> None:
    each: Filter = Length(characters=[1, None])
    assert each.settings == {
        "characters": [1, None],
        "words": (None, None),
        "tokens": (None, None),
        "ratio": (None, None),
    }
    assert Duplicates().settings == {"of": "row"}
    assert Overlap().settings == {"words": 13, "shortest": 8, "evaluation": []}
