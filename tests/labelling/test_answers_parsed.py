"""What forms read out of an answer, and what they refuse."""

from pathlib import Path

import pytest

from mangakd.core.errors import UserError
from mangakd.data.rows import Rows
from mangakd.labelling.forms import Unusable
from mangakd.labelling.forms.label_names import LabelNames, label_names
from mangakd.labelling.forms.lines import counted, texts_of
from mangakd.labelling.forms.paraphrases import Paraphrases, dice, score
from mangakd.labelling.forms.scores import Scores
from mangakd.labelling.provider import Answer
from mangakd.labelling.templates import Template

LETTERED = LabelNames({"buy": "", "return_item": "sends back", "(other)": ""}, letters=True)
NAMED = LabelNames({"buy": "", "return_item": "sends back", "(other)": ""})
SCORES = Template.of("scores")


@pytest.mark.parametrize(
    ("answer", "name"),
    [
        ("B", "return_item"), ("b", "return_item"), (" **B.** ", "return_item"), ("(B)", "return_item"), ("C", "(other)"),
        ("B. return_item", "return_item"), ("Answer: B", "return_item"), ("return_item", "return_item"),
        ('{"label": "A"}', "buy"), ("B) Return_Item", "return_item"), ("label = 'buy'", "buy"),
    ],
)  # fmt: skip
def test_a_letter_or_a_name_is_a_label(answer: str, name: str) -> None:
    assert LETTERED.read(answer) == name


@pytest.mark.parametrize(
    "answer", ["D", "B because it is", "A. return_item", "buy or return_item", "", '{"a": "A", "b": 1}', "AB"]
)
def test_another_answer_is_no_label(answer: str) -> None:
    with pytest.raises(Unusable, match="no label"):
        LETTERED.read(answer)


def test_a_letter_is_no_name_where_names_are_asked_for() -> None:
    assert NAMED.read("(other)") == "(other)" and NAMED.read("other.") == "(other)" and NAMED.read('"Buy"') == "buy"
    with pytest.raises(Unusable, match="no label"):
        NAMED.read("A")
    assert NAMED.choices == ("buy", "return_item", "(other)") and LETTERED.choices == ("A", "B", "C")


def test_letters_go_on_in_lower_case() -> None:
    many = LabelNames({f"label {i}": "" for i in range(30)}, letters=True)
    assert many.choices[25:28] == ("Z", "a", "b") and many.read("b") == "label 27" and many.read("B") == "label 1"


def test_the_last_alphabet_of_one_case_and_the_last_of_two() -> None:
    """26 labels: no two letters differ in case alone. 27: `a` is one of them. 52 have a letter each."""
    each = [LabelNames({f"label {i}": "" for i in range(count)}, letters=True) for count in (26, 27, 52)]
    assert [names.read("a") for names in each] == ["label 0", "label 26", "label 26"]
    assert each[2].choices[-1] == "z" and each[2].read("z") == "label 51"


def test_names_come_from_a_list_a_mapping_or_a_labelled_file(tmp_path: Path) -> None:
    file = tmp_path / "train.csv"
    file.write_text("text,intent\nx,buy\ny,ask\nz,buy\n")
    assert label_names(["b", "a"], None, "label", False).names == ("b", "a")
    assert label_names({"b": "what", "a": None}, None, "label", True).options == [
        {"choice": "A", "name": "b", "description": "what"}, {"choice": "B", "name": "a", "description": ""},
    ]  # fmt: skip
    assert label_names(None, str(file), "intent", False).names == ("ask", "buy")


@pytest.mark.parametrize(
    ("names", "path", "letters", "words"),
    [
        (None, None, False, "both null"),
        (["a", "b"], "x.csv", False, "both set"),
        (["a"], None, False, "1 names"),
        (["a", "b", "a"], None, False, "a twice"),
        (["Buy", "buy"], None, False, "case alone"),
        ([str(i) for i in range(53)], None, True, "52 letters, and there are 53 labels. Set labels.answer=name"),
        (None, "nowhere.csv", False, "labels.path=nowhere.csv"),
    ],
)
def test_names_that_cannot_be_asked_for_are_refused(names: object, path: str | None, letters: bool, words: str) -> None:
    with pytest.raises(UserError, match=words):
        label_names(names, path, "label", letters)


@pytest.mark.parametrize(
    ("answer", "texts"),
    [
        ("one\ntwo\n\nOne", ["one", "two"]),
        ('Here are two queries:\n1. "first one"\n2) second\nDone.', ["first one", "second"]),
        ("- a b\n* c\n• d", ["a b", "c", "d"]),
        ('["x", "y", "X "]', ["x", "y"]),
        ('{"queries": ["x", "y"]}', ["x", "y"]),
        ("「本を買う」\n2024 releases", ["本を買う", "2024 releases"]),
        ("", []),
    ],
)
def test_lines_and_lists_are_texts(answer: str, texts: list[str]) -> None:
    assert texts_of(answer) == texts


def test_lists_of_other_things_are_unusable() -> None:
    with pytest.raises(Unusable, match="no list of texts"):
        texts_of("[1, 2]")
    with pytest.raises(Unusable, match="fewer than 3 texts"):
        counted(["a", "b"], 3, 5)
    assert counted(["a", "b", "c"], 1, 2) == ["a", "b"]


@pytest.mark.parametrize(
    ("answer", "number"), [("2", 2), (" 3. ", 3), ("**0**", 0), ("Score: 1", 1), ('{"score": 2}', 2), ('"2"', 2)]
)
def test_a_score_is_a_number_alone(answer: str, number: int) -> None:
    assert scored(answer)[0]["scores"] == [number]


@pytest.mark.parametrize(
    ("answer", "reason"),
    [("2.5", "no number"), ("2 of 3", "no number"), ("two", "no number"), ("2 or 3", "no number"), ("", "no number"),
     ("4", "outside the scale 0 … 3"), ("-1", "outside the scale"), ("true", "no number"), ('{"score": true}', "no number")],
)  # fmt: skip
def test_other_words_are_no_score(answer: str, reason: str) -> None:
    with pytest.raises(Unusable, match=reason):
        scored(answer)


def scored(answer: str) -> list[dict[str, object]]:
    rows = Rows({"query": ["q"], "documents": [("d",)], "document": [1]}, [1])
    return [dict(row) for row in Scores(prompt=SCORES).read(rows, 0, Answer(answer, "ended", 1))]


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"least": 3}, "least < most"), ({"most": 2.5}, "whole numbers"), ({"most": 20, "expected": True}, "scoring.most=19"),
    ],
)  # fmt: skip
def test_scales_that_nobody_can_answer_are_refused(options: dict[str, object], words: str) -> None:
    with pytest.raises(UserError, match=words):
        Scores(prompt=SCORES, **options)  # type: ignore[arg-type]


def test_the_score_of_a_paraphrase_by_hand() -> None:
    """` abc ` has the trigrams ` ab`, `abc`, `bc `; ` abd ` has ` ab`, `abd`, `bd `: Dice 2 · 1 / 6."""
    assert dice("abc", "abd") == pytest.approx(1 / 3)
    assert score("abc", "abd") == pytest.approx(4 / 3 * 2 / 3)
    assert score("abc", "abd", cosine=0.6) == pytest.approx(2 / 3 * 0.6)
    assert score("abc", " ABC") == score("abc", "xyz") == score("abc", "") == 0.0
    assert score("abc", "xyz", cosine=-0.5) == 0.0
    half = dice("abc", "abcabc")  # ` ab` abc `bc ` of 3 and 6 trigrams
    assert half == pytest.approx(6 / 9) and score("abc", "abcabc") == pytest.approx(0.5 * 4 * 2 / 3 * 1 / 3)


def test_the_best_paraphrases_are_kept() -> None:
    form = Paraphrases(prompt=Template.of("paraphrases"), count=4, best=2)
    source = "where is my order"
    rows = Rows({"text": [source], "label": [("status",)]}, [1])
    good, better, far = "where has my order gone", "where's the order of mine", "bananas are yellow and sweet"
    said = Answer(f"1. {source}\n2. {far}\n3. {good}\n4. {better}\n5. never read, as four were asked for", "ended", 9)
    first, second = form.read(rows, 0, said)
    assert {first["text"], second["text"]} == {good, better} and first["score"] >= second["score"] > 0.3
    assert first["label"] == second["label"] == "status"
    with pytest.raises(Unusable, match="no paraphrase"):
        form.read(rows, 0, Answer(f"{source}.\n{far}", "ended", 9))
