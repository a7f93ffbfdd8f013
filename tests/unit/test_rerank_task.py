"""The rerank task around its scores: losses over micro-batches, what the report says, and what it names instead of averaging."""

from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from contract.tiny_models import config, encoder, tokenizer

from mangakd.core.errors import UserError
from mangakd.core.outputs import Outputs
from mangakd.core.spec import Head
from mangakd.data.encoded import EncodedSplit, joined
from mangakd.data.rows import Rows
from mangakd.data.sampler import BucketSampler, Share
from mangakd.data.source import Corpus
from mangakd.data.steps import RowSteps
from mangakd.evaluation import predictions
from mangakd.evaluation.predictions import Predictions
from mangakd.evaluation.randomisation import p_value
from mangakd.losses.attention import AttentionLoss
from mangakd.losses.binary import BinaryLoss
from mangakd.losses.groups import Groups
from mangakd.losses.hidden import HiddenLoss
from mangakd.losses.list_net import ListNetLoss
from mangakd.losses.listwise_kl import ListwiseKLLoss
from mangakd.losses.loss_set import LossSet
from mangakd.losses.margin_mse import MarginMSELoss
from mangakd.losses.rank_net import RankNetLoss
from mangakd.losses.relation import RelationLoss
from mangakd.losses.score_mse import ScoreMSELoss
from mangakd.runs.texts import Tokeniser
from mangakd.tasks.rerank import word_search
from mangakd.tasks.rerank.encode import encoded
from mangakd.tasks.rerank.judge import RerankJudge
from mangakd.tasks.rerank.task import Rerank

HEAD, NAN, INF = Head("score", 1), np.nan, np.inf
GRADES = [(2.0, 0.0, 0.0), (1.0,), (0.0, 0.0), (0.0, 1.0, 2.0, 1.0), (3.0, 0.0), (0.0, 0.0, 1.0)]


def split(cache: Path, grades: list[tuple[float, ...]]) -> EncodedSplit:
    documents = [tuple(f"w{i} w{j} " * (i + j + 1) for j in range(len(one))) for i, one in enumerate(grades)]
    rows = Rows({"query": [f"w{i}" for i in range(len(grades))], "documents": documents, "grades": grades})
    return encoded(rows, Tokeniser(tokenizer(), tokenizer(), 16, cache))


def test_padding_is_no_document_whatever_the_scores(tmp_path: Path) -> None:
    """A padding of 0 would be the first document of a query whose scores are all negative."""
    rows = split(tmp_path, GRADES)
    batch = rows.collate([0, 1, 3])
    scores = torch.tensor([[-3.0], [-1.0], [-2.0], [-5.0], [-4.0], [-6.0], [-7.0], [-8.0]])
    answers = Rerank().ask(lambda each: Outputs(scores, each["student"]["attention_mask"]), batch)["logits"]
    assert answers.tolist() == [[-3, -1, -2, -INF], [-5, -INF, -INF, -INF], [-4, -6, -7, -8]]
    table = Groups.of(batch).padded(scores, 9.0)
    assert table[0].tolist() == [-3, -1, -2, 9] and table[1].tolist() == [-5, 9, 9, 9]


# --- documents that nobody judged ------------------------------------------------------------------------------------


def test_a_document_that_nobody_judged_counts_as_grade_0_and_is_told(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """As candidates of a search have it. Scores do not change; judged@10 says how far they can be trusted."""
    some, none = ([(2.0, rest, 0.0), (1.0, rest), (rest, 2.0, rest)] for rest in (NAN, 0.0))
    columns = [
        {"query": ["a", "b", "c"], "documents": [("x", "y", "z"), ("x", "y"), ("x", "y", "z")], "grades": g}
        for g in (some, none)
    ]
    rows, filled = (Rows(each, [1, 2, 3], "a.jsonl", "line") for each in columns)
    with caplog.at_level("INFO", "mangakd"):
        Rerank().prepare(Corpus("made", rows, filled, filled, filled.take([])))
    assert "a.jsonl: 4 of 8 documents have no grade" in caplog.text.replace(" of train", "")
    head, truths = (
        HEAD,
        [dict(encoded(each, Tokeniser(tokenizer(), tokenizer(), 16, tmp_path)).columns) for each in (rows, filled)],
    )
    logits = {"logits": np.array([[3.0, 2.0, 1.0], [1.0, 2.0, -INF], [3.0, 1.0, 2.0]])}
    ours, theirs = (RerankJudge().values(head, logits, truth) for truth in truths)
    assert ours.pop("judged@10") == pytest.approx((2 / 3 + 1 / 2 + 1 / 3) / 3) and theirs.pop("judged@10") == 1
    assert ours == theirs and RerankJudge().chance(head, truths[0]) == RerankJudge().chance(head, truths[1])
    older = RerankJudge().values(head, logits, {"grades": truths[1]["grades"]})  # predictions of an earlier version
    assert older.pop("judged@10") == 1 and older == theirs


@pytest.mark.parametrize(
    ("grades", "words"), [((NAN, -1.0), "row 1 has the grade -1"), ((NAN, NAN), "no query of train")]
)
def test_missing_grades_hide_no_mistake(grades: tuple[float, ...], words: str) -> None:
    rows = Rows({"query": ["a"], "documents": [("x", "y")], "grades": [grades]})
    with pytest.raises(UserError, match=words):
        Rerank().prepare(Corpus("made", rows, rows, rows, rows.take([])))


# --- losses over the parts of a step ---------------------------------------------------------------------------------


@pytest.mark.parametrize(("world", "accumulate"), [(1, 3), (2, 1), (2, 2)])
def test_a_step_in_parts_is_the_step_at_once(world: int, accumulate: int, tmp_path: Path) -> None:
    """Ranking losses count queries, the others tokens of all pairs: both must be divided by what the whole step holds."""
    rows = split(tmp_path, GRADES)
    student, teacher = encoder(config("bert", layers=2), HEAD, 0), encoder(config("bert", layers=2), HEAD, 1)
    losses = LossSet({
        "listwise": ListwiseKLLoss(), "list_net": ListNetLoss(), "margin": MarginMSELoss(), "pairs": RankNetLoss(),
        "graded": MarginMSELoss(pairs="graded"), "each": ScoreMSELoss(), "binary": BinaryLoss(), "hidden": HiddenLoss(),
        "attention": AttentionLoss(), "relation": RelationLoss(),
    })  # fmt: skip
    losses.bind(student.spec, teacher.spec)
    student.require(losses.requires.student)
    teacher.require(losses.requires.teacher).requires_grad_(False)

    def terms(batch: dict) -> dict[str, float]:
        output = losses(student(batch["student"]), teacher(batch["teacher"]), batch, 0.0)
        return {name: value.item() for name, value in output.terms.items()}

    shares = [Share(rank, world, accumulate) for rank in range(world)]
    lengths = rows.lengths(rows.student)
    parts = [
        rows[micro] for share in shares for micro in BucketSampler(lengths, RowSteps(len(rows)), 0, rows.units, share)
    ]
    micro = [terms(dict(batch)) for batch in parts]
    assert len(micro) == world * accumulate
    whole = terms(dict(rows.collate(range(len(rows)))))
    for name, value in whole.items():
        assert np.mean([part[name] for part in micro]) == pytest.approx(value, rel=1e-4), name


def test_lists_of_two_splits_are_padded_to_the_longest(tmp_path: Path) -> None:
    both = joined([split(tmp_path, GRADES[:3]), split(tmp_path, GRADES)])
    assert both.columns["grades"].shape == (9, 4) and np.isnan(both.columns["grades"][:3, 3]).all()
    assert len(both.units["ordered"]) == 9 and both.units["ordered"].sum() == 1 + 4


def test_rows_without_grades_count_as_groups_only(tmp_path: Path) -> None:
    rows = encoded(
        Rows({"query": ["w1"], "documents": [("w2", "w3")]}), Tokeniser(tokenizer(), tokenizer(), 16, tmp_path)
    )
    assert np.isnan(rows.columns["grades"]).all()
    assert {unit: int(rows.units[unit][0]) for unit in ("labels", "groups", "ordered")} == {
        "labels": 0,
        "groups": 1,
        "ordered": 0,
    }


def test_bm25_scores_each_document_beside_its_query() -> None:
    pytest.importorskip("bm25s")
    rows = Rows({
        "query": ["refund of an order", "nothing of it"],
        "documents": [("the order", "a refund of the order", "shipping"), ("the order", "a refund")],
    })  # fmt: skip
    logits = word_search.scores(rows)["logits"].tolist()
    assert logits[0][1] > logits[0][0] > logits[0][2] == 0 and logits[1][1:] == [0, -INF]


# --- the report ------------------------------------------------------------------------------------------------------


def predicted(**scores: list[list[float]]) -> Predictions:
    """Three queries: three documents, two, and two of which none is relevant."""
    grades = np.array([[2, 0, 1], [0, 1, NAN], [0, 0, NAN]], dtype=np.float32)
    documents = [["first", "second", "third"], ["fourth", "fifth"], ["sixth", "seventh"]]
    answers = {model: {"logits": np.array(each, dtype=np.float32)} for model, each in scores.items()}
    return Predictions(HEAD, ["one", "two", "three"], {"grades": grades}, answers, lists={"documents": documents})


TEACHER = [[9, 0, 1], [0, 5, -INF], [1, 0, -INF]]
STUDENT = [[0, 3, 1], [0, 5, -INF], [0, 1, -INF]]
CONSTANT = [[4, 4, 4], [2, 2, -INF], [7, 7, -INF]]


def blocks(test: Predictions, title: str) -> list:
    details = RerankJudge().details(test)
    sections = details.sections(SimpleNamespace(test=test))  # type: ignore[arg-type]
    return list(next(section for section in sections if section.title == title).blocks)


def test_queries_whose_first_document_changed() -> None:
    note, table = blocks(predicted(teacher=TEACHER, student=STUDENT), "Changed first documents")
    assert "2 of 3 test queries" in note and "a higher grade for 0, a lower one for 1" in note
    assert table.rows == [
        ["one", "first (grade 2)", "second (grade 0)"],
        ["three", "sixth (grade 0)", "seventh (grade 0)"],
    ]
    (same,) = blocks(predicted(teacher=TEACHER, student=TEACHER), "Changed first documents")
    assert same == "Student and teacher put the same document first for every test query."


def test_a_constant_scorer_is_named() -> None:
    test = predicted(teacher=TEACHER, student=CONSTANT)
    notes = RerankJudge().details(test).notes
    assert notes[0].startswith("1 of 3 queries have no relevant document")
    assert (
        notes[1].startswith("The student gives all documents of a query one score in 100% of the queries")
        and len(notes) == 2
    )
    _, table = blocks(test, "Spread of scores")
    assert table.rows[1] == ["student", "0.000", "100.0%", "2.00 … 7.00"]
    values = RerankJudge().values(HEAD, test.answers["student"], test.truth)
    assert values["ndcg_exp@3"] == pytest.approx(RerankJudge().chance(HEAD, test.truth)["ndcg_exp@3"])


def test_chance_has_the_cut_of_the_main_score() -> None:
    """The relevant one of four tied documents is at the places 1, 2 and 3 with a chance of ¼ each, and else beyond the cut."""
    grades = np.array([[0, 0, 1, 0, NAN]])
    chance = RerankJudge().chance(HEAD, {"grades": grades})["ndcg_exp@3"]
    assert chance == pytest.approx((1 + 1 / np.log2(3) + 1 / 2) / 4)


def test_references_stand_beside_the_models() -> None:
    test = predicted(BM25=CONSTANT, student=STUDENT, teacher=TEACHER)
    assert test.models == ["teacher", "student", "BM25"]
    _, table = blocks(test, "Randomisation test")
    assert table.headers == ["", "student against teacher", "student against BM25"]
    assert table.rows[0][0] == "NDCG@3, exponential gain" and "KL" not in str(table.rows)


def test_predictions_keep_lists_and_references(tmp_path: Path) -> None:
    test = predicted(teacher=TEACHER, student=STUDENT, BM25=CONSTANT)
    predictions.save(test, tmp_path, "test")
    again = predictions.load(tmp_path, "test")
    assert again.same_rows(test) and again.lists == test.lists and again.models == test.models
    np.testing.assert_array_equal(again.answers["BM25"]["logits"], np.array(CONSTANT, dtype=np.float32))


@pytest.mark.parametrize("relevant", [0, -1, True, "best"])
def test_the_least_grade_of_a_relevant_document(relevant: object) -> None:
    with pytest.raises(UserError, match=r"task\.judge\.relevant"):
        RerankJudge(relevant)  # type: ignore[arg-type]


# --- the randomisation test ------------------------------------------------------------------------------------------


def test_p_values_by_hand() -> None:
    """Five differences of one sign: 2 of the 32 choices of signs are as far apart. Equal models: all are."""
    assert p_value(np.arange(1.0, 6.0), np.zeros(5)) == pytest.approx(2 / 32, abs=0.01)
    assert p_value(np.ones(5), np.ones(5)) == 1.0
    assert p_value(np.array([1.0, -1.0]), np.zeros(2)) == 1.0


def test_the_least_p_value_counts_what_was_seen_as_a_draw() -> None:
    """No draw of 99 gives 200 coins one side, and the p-value is not 0."""
    assert p_value(np.ones(200), np.zeros(200), resamples=99) == 1 / 100


def test_p_values_of_equal_models_are_uniform_and_of_others_small() -> None:
    rng = np.random.default_rng(0)
    pairs = rng.normal(size=(200, 2, 40))
    found = [p_value(one, other, resamples=200, seed=i) for i, (one, other) in enumerate(pairs)]
    assert 0.01 < np.mean(np.array(found) < 0.05) < 0.1
    assert p_value(pairs[0, 0] + 3, pairs[0, 1]) < 0.001
