"""Scores of rewrites: golden numbers by hand, means over the rows that they are about, and what a report shows."""

import json
import math
from pathlib import Path

import numpy as np
import pytest
import tiny_seq2seq
from rewrite_rows import rewrite_tokenizer, row, rows

from mangakd.core.errors import UserError
from mangakd.core.spec import Head
from mangakd.data.seq2seq import SourceOptions
from mangakd.evaluation import predictions
from mangakd.evaluation.bootstrap import bootstrap
from mangakd.evaluation.generations import GREEDY, Text
from mangakd.evaluation.predictions import Predictions
from mangakd.runs.texts import Tokeniser
from mangakd.tasks.base import Samples
from mangakd.tasks.rewrite.encode import encoded
from mangakd.tasks.rewrite.judge import RewriteJudge
from mangakd.tasks.rewrite.measures import gain, of_text
from mangakd.tasks.rewrite.scores import added_terms, scored, token_f1
from mangakd.tasks.rewrite.search import Search
from mangakd.tasks.rewrite.texts import Scorer, first_rows
from mangakd.training.validation_texts import ValidationTexts

NAN, HEAD = math.nan, Head("tokens", 0, source=True)


def test_scores_of_a_text_by_hand() -> None:
    """`Was Sara Evans raised there?` has 5 words, of which the copy has 3 of its 4; `Sara` and `Evans` are added."""
    target, utterance = "Was Sara Evans raised there?", "Was she raised there?"
    copy = scored([utterance], [target], utterance)
    assert copy == {
        "exact_match": 0.0, "token_f1": pytest.approx(2 * 3 / 9), "rouge_l": pytest.approx(2 * 3 / 9), "added_terms": 0.0,
    }  # fmt: skip
    half = scored(["there raised was Sara"], [target], utterance)
    # The longest common subsequence is `was sara` (2), the common bag has 4 words.
    assert half["token_f1"] == pytest.approx(2 * 4 / 9) and half["rouge_l"] == pytest.approx(2 * 2 / 9)
    assert half["added_terms"] == 0.5
    assert scored(["was  Sara Evans raised there?"], [target], utterance)["exact_match"] == 1.0


def test_a_bag_counts_a_word_as_often_as_it_is_there() -> None:
    assert token_f1("the the the", "the cat") == pytest.approx(2 * 1 / 5)
    assert token_f1("", "the cat") == 0.0 and math.isnan(token_f1("x", "?"))


def test_several_targets_and_expansions() -> None:
    own = scored(["b c", "z"], ["a b", "b c d"], "a")
    assert own["exact_match"] == 0.0 and own["token_f1"] == pytest.approx(2 * 2 / 5)
    assert own["added_terms"] == pytest.approx(2 / 3)  # b, c, d are added; b and c are there
    assert scored(["x", "d"], ["a b", "b c d"], "a")["added_terms"] == pytest.approx(1 / 3)
    assert math.isnan(added_terms(["a"], ["a"], "a b"))
    assert scored([], ["a"], "b") == {"exact_match": 0.0, "token_f1": 0.0, "rouge_l": 0.0, "added_terms": 0.0}


def test_texts_on_validation_come_every_other_epoch(tmp_path: Path) -> None:
    """A student that writes the first target of each row."""
    given = rows(12)
    tokeniser = Tokeniser(rewrite_tokenizer(), rewrite_tokenizer(), 64, tmp_path)
    split = encoded(given, tokeniser, SourceOptions())
    places, scorer = first_rows(split, None), Scorer.of(split.rows_of(given), Search())
    ways = [{GREEDY: Text("", scorer.scores(i, scorer.targets[i]))} for i in places.tolist()]
    texts = ValidationTexts(Samples([], 1, lambda model, advance: ways, places), split, RewriteJudge(), every=2)
    student = tiny_seq2seq.encoder("t5")
    each = [texts.scores(student, epoch) for epoch in range(4)]
    assert each[0] == each[2] == {} and each[1] == each[3] and each[1]["exact_match"] == 1.0 == each[1]["recall@10"]
    assert {*each[1]} == {*RewriteJudge.generated}
    half = first_rows(split, 5)
    assert len(places) == 12 < len(split) and len(half) == 5 and {*half.tolist()} <= {*places.tolist()}


# --- search ------------------------------------------------------------------------------------------------------------------


ANSWERS = ["cat dog", "cat fox bird", "bear", "", "cat dog", "wolf wolf"]


def test_ranks_of_a_search_by_hand() -> None:
    """Five rows have an answer, two of them the same: four documents. `cat` finds two, the shorter one first."""
    index = Search().index(rows(6, answer=ANSWERS))
    assert index is not None and [*index.relevant] == [{0}, {1}, {2}, set(), {0}, {3}]
    assert index.scores(0, ["cat"]) == {"recall@10": 1.0, "recall@100": 1.0, "mrr@10": 1.0}
    assert index.scores(1, ["cat"]) == {"recall@10": 1.0, "recall@100": 1.0, "mrr@10": 0.5}
    assert index.scores(2, ["cat"]) == {"recall@10": 0.0, "recall@100": 0.0, "mrr@10": 0.0}
    assert all(map(math.isnan, index.scores(3, ["cat"]).values()))
    # The union of two searches: bear is first in the second one.
    assert index.scores(2, ["cat", "bear"])["mrr@10"] == 1.0 and index.scores(1, ["cat", "fox"])["mrr@10"] == 1.0


def test_recall_ends_at_rank_ten() -> None:
    """Twelve documents of one word and more and more others: the longest is the last."""
    answers = [f"cat {' '.join(f'w{i}' for i in range(n))}" for n in range(12)]
    index = Search().index(rows(12, answer=answers))
    assert index is not None
    each = [index.scores(i, ["cat"]) for i in range(12)]
    assert [scores["recall@10"] for scores in each] == [1.0] * 10 + [0.0] * 2
    assert [scores["mrr@10"] for scores in each] == pytest.approx([1 / n for n in range(1, 11)] + [0, 0])
    assert all(scores["recall@100"] == 1.0 for scores in each)


def beir(folder: Path) -> str:
    (folder / "qrels").mkdir(parents=True)
    lines = {
        "corpus.jsonl": [
            {"_id": f"d{i}", "title": "", "text": text} for i, text in enumerate(("cat", "dog cat", "dog", "cat"))
        ],
        "queries.jsonl": [{"_id": "q1", "text": "x"}],
    }
    for name, rows_of in lines.items():
        (folder / name).write_text("\n".join(map(json.dumps, rows_of)))
    (folder / "qrels" / "test.tsv").write_text("query-id\tcorpus-id\tscore\nq1\td1\t1\nq1\td2\t2\nq1\td0\t0\n")
    return str(folder)


def test_a_folder_has_more_documents_and_judgements(tmp_path: Path) -> None:
    search = Search(beir(tmp_path))
    index = search.index(rows(3, answer=["cat", "wolf", ""], query_id=["", "", "q1"]))
    assert index is not None and [*index.relevant] == [{0}, {4}, {1, 2}]
    assert index.scores(2, ["dog"]) == {"recall@10": 1.0, "recall@100": 1.0, "mrr@10": 1.0}
    assert index.scores(2, ["wolf"]) == {"recall@10": 0.0, "recall@100": 0.0, "mrr@10": 0.0}
    assert index.scores(1, ["wolf dog"])["mrr@10"] == 1.0
    with pytest.raises(UserError, match=r"query_id q7, which no file of task\.search\.corpus's qrels/ judges"):
        search.index(rows(1, query_id=["q7"]))
    with pytest.raises(UserError, match=r"task\.search\.corpus=.*corpus\.jsonl"):
        Search(str(tmp_path / "none")).index(rows(1))


def test_without_answers_nothing_is_searched() -> None:
    assert Search().index(row(utterance="a", rewrite=("b",))) is None


# --- the judge ---------------------------------------------------------------------------------------------------------------


LATER = np.array([1, 1, 1, 0])
TRUTH = {"tokens": np.array([2, 3, 4, 5]), "later": LATER}


def answers(exact: list[float], recall: list[float]) -> dict[str, np.ndarray]:
    return {
        "nll": np.array([2.0, 3.0, 8.0, 1.0]), "exact_match": np.array(exact), "token_f1": np.array(exact),
        "recall@10": np.array(recall),
    }  # fmt: skip


def test_means_leave_first_turns_and_rows_without_a_score_out() -> None:
    values = RewriteJudge().values(HEAD, answers([1.0, 0.0, NAN, 1.0], [NAN, 1.0, 1.0, 0.0]), TRUTH)
    assert values == pytest.approx(
        {"perplexity": math.exp(14 / 14), "nll": 1.0, "exact_match": 0.5, "token_f1": 0.5, "recall@10": 1.0}
    )
    alone = {**TRUTH, "later": np.ones(4)}
    assert RewriteJudge().values(HEAD, answers([1.0, 0.0, NAN, 1.0], [NAN] * 4), alone)["exact_match"] == pytest.approx(
        2 / 3
    )


def test_a_row_drawn_twice_counts_twice() -> None:
    statistic = of_text(np.array([1.0, 0.0, NAN, 1.0]), np.array([True] * 4))
    counts = np.array([[2, 1, 1, 0], [0, 0, 4, 0]])
    np.testing.assert_allclose(statistic.resample(counts, counts @ statistic.features), [2 / 3, np.nan])


def test_expansions_of_a_source_are_one_unit_of_an_interval() -> None:
    """Source 7 has three sequences of 2 tokens, of 1 nat each; source 9 has one, of 4 nats. So nll is 1, 2 or 10 / 8."""
    truth = {"tokens": np.array([2, 2, 2, 2]), "later": np.ones(4), "source_row": np.array([7, 7, 9, 7])}
    own = {
        "nll": np.array([2.0, 2.0, 4.0, 2.0]), "exact_match": np.array([1.0, NAN, 0.0, NAN]),
        "recall@10": np.array([1.0, NAN, 1.0, NAN]),
    }  # fmt: skip
    statistics = RewriteJudge().statistics(HEAD, own, truth)
    assert statistics["nll"].features.tolist() == [[6.0, 6.0], [4.0, 2.0]]
    assert statistics["exact_match"].features.tolist() == [[1.0, 1.0], [0.0, 1.0]]
    draws = bootstrap({"nll": statistics["nll"], "exact": statistics["exact_match"]}, 4000)
    values, counts = np.unique(draws["nll"].draws.round(6), return_counts=True)
    assert values.tolist() == [1.0, 1.25, 2.0] and counts / 4000 == pytest.approx([0.25, 0.5, 0.25], abs=0.03)
    assert {*draws["exact"].draws.tolist()} == {0.0, 0.5, 1.0} and draws["nll"].value == 1.25
    rows_alone = RewriteJudge().statistics(HEAD, own, {n: each for n, each in truth.items() if n != "source_row"})
    assert len(np.unique(bootstrap({"nll": rows_alone["nll"]}, 4000)["nll"].draws.round(6))) == 5
    copy = {"exact_match": np.array([0.0, NAN, 0.0, NAN]), "recall@10": np.array([0.0, NAN, 1.0, NAN])}
    test = Predictions(HEAD, ["a", "a", "b", "a"], truth, {"student": own, "teacher": own, "copy": copy})
    assert RewriteJudge().details(test).statistics["student", "recall_gain"].features.tolist() == [
        [1.0, 1.0],
        [0.0, 0.0],
    ]


def test_the_share_of_the_gain_by_hand() -> None:
    """Copy finds 1 of 4, the teacher 3, the student 2: one half. The last row is no later turn, the first has no teacher."""
    sides = [np.array(each) for each in ([1.0, 0, 1, 0, 0, 1], [NAN, 0, 1, 1, 1, 1], [1.0, 0, 0, 0, 1, 0])]
    own, teacher, copy = ({"recall@10": each} for each in sides)
    statistic = gain(own, teacher, copy, np.array([True] * 5 + [False]))
    # Rows 1…4: the student gains 0 + 1 + 0 − 1, the teacher 0 + 1 + 1 + 0.
    assert statistic is not None and statistic.value == 0.0
    better = gain({"recall@10": np.array([0.0, 0, 1, 0, 1, 0])}, teacher, copy, np.array([True] * 5 + [False]))
    assert better is not None and better.value == 0.5
    assert bootstrap({"gain": better}, 200)["gain"].bounds == (-np.inf, np.inf)
    assert gain(own, {}, copy, np.ones(6, dtype=bool)) is None


def test_the_report_compares_the_systems_and_shows_the_worst_first(tmp_path: Path) -> None:
    sides = {
        "teacher": answers([1.0, 1.0, 1.0, 1.0], [1.0, 1.0, 1.0, 1.0]),
        "student": answers([0.25, 1.0, 0.5, 1.0], [1.0, 1.0, 0.0, 1.0]),
        "baseline": answers([0.0, 1.0, 0.0, 1.0], [0.0, 1.0, 0.0, 1.0]),
        "copy": {
            name: values
            for name, values in answers([0.0, 0.0, 0.0, 1.0], [0.0, 0.0, 1.0, 1.0]).items()
            if name != "nll"
        },
    }
    lists = {
        "history": [["h0", "h1"], ["h2"], ["h3"], []], "utterance": [["u0"], ["u1"], ["u2"], ["u3"]],
        "rewrite": [["r0"], ["r1"], ["r2"], ["r3"]], "source": [["x"], ["y"], ["x"], ["x"]],
    }  # fmt: skip
    written = {name: [[f"{name} {i}"] for i in range(4)] for name in ("teacher", "student", "baseline")}
    test = Predictions(HEAD, ["u0", "u1", "u2", "u3"], TRUTH, sides, lists=lists, written=written)
    predictions.save(test, tmp_path, "test")
    again = predictions.load(tmp_path, "test")
    assert again.written == written and again.lists == lists and again.same_rows(test)
    details = RewriteJudge().details(again)
    # The teacher gains 1 + 1 + 0, the student 1 + 1 − 1, the baseline 0 + 1 − 1.
    assert {key: each.value for key, each in details.statistics.items()} == {
        ("student", "recall_gain"): 0.5, ("baseline", "recall_gain"): 0.0,
    }  # fmt: skip

    class Result:
        resamples = 50

    groups, texts = details.sections(Result())  # type: ignore[arg-type]
    (_, table, *_) = groups.blocks
    titles = [row[0] for row in table.rows]
    assert titles == ["all but first turns (3)", "source x (2)", "source y (1)", "first turns (1)"]
    assert [cell.text for cell in table.rows[0][1:5]] == [
        "0.0%",
        "100.0%",
        "33.3%",
        "58.3%",
    ]  # copy, teacher, no KD, student
    assert table.headers[1:5] == ["copy", "teacher", "student without KD", "student"]
    assert table.rows[0][5].text == "+25.0"
    (_, shown) = texts.blocks
    assert [row[1] for row in shown.rows] == ["u0", "u2", "u1", "u3"]
    assert shown.rows[0] == ["h0\nh1", "u0", "r0", "teacher 0", "baseline 0", "student 0", "0.25", "1.00"]
    assert any("1 first turns are left out" in note for note in details.notes)
