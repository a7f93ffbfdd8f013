"""A cross-encoder is exported with its pairs: token types in the graph, the document cut, judged by the order of documents."""

import json
import shutil
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from exported import student
from torch import nn
from transformers import AutoModelForSequenceClassification, AutoTokenizer

from mangakd import runtime
from mangakd.cli.export import run as run_export
from mangakd.cli.once import config_of, hydra_ready
from mangakd.core.errors import UserError
from mangakd.core.spec import Head
from mangakd.data.rows import Rows
from mangakd.export import graph
from mangakd.export.choose import choose
from mangakd.export.company import compare
from mangakd.export.measure import Measurement
from mangakd.export.variants import make
from mangakd.losses.groups import Groups
from mangakd.models.sentence_transformers import Settings, write_cross_encoder
from mangakd.tasks.rerank.task import Rerank

for package in ("onnx", "onnxscript", "onnxruntime"):
    pytest.importorskip(package)

LENGTH = 32
QUERIES = [f"where is order {i}" for i in range(12)]
DOCUMENTS = [
    [f"order {i} is {'very ' * j}late", "a refund", "東京" * j, "shipping " * 40][: 2 + j % 3]
    for i in range(4)
    for j in range(3)
]
PAIRS = [(query, document) for query, own in zip(QUERIES, DOCUMENTS, strict=True) for document in own]


@pytest.fixture(autouse=True)
def logs_stay(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("mangakd.cli.export.start_logging", lambda folder: None)


@pytest.fixture(scope="module")
def ranker(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = student(tmp_path_factory.mktemp("pairs") / "student", "regression")
    model = AutoModelForSequenceClassification.from_pretrained(folder)
    with torch.no_grad():
        model.bert.embeddings.token_type_embeddings.weight[1] += 1  # so that types decide
    model.save_pretrained(folder)
    write_cross_encoder(Settings(max_length=LENGTH), nn.Identity(), folder)
    return folder


@pytest.fixture(scope="module")
def variants(ranker: Path) -> Path:
    """onnx_fp32 and onnx_int8, made once."""
    make(ranker, ranker.parent / "export", ("onnx_fp32", "onnx_int8"), PAIRS)
    return ranker.parent / "export"


def torch_scores(folder: Path, pairs: Sequence[tuple[str, str]]) -> np.ndarray:
    """(S, 1), pair by pair, without mangakd."""
    tokenizer = AutoTokenizer.from_pretrained(folder)
    model = AutoModelForSequenceClassification.from_pretrained(folder).eval()
    with torch.no_grad():
        return np.concatenate([
            model(**tokenizer([q], [d], truncation="only_second", max_length=LENGTH, return_tensors="pt")).logits.numpy()
            for q, d in pairs
        ])  # fmt: skip


@pytest.mark.parametrize("name", ["onnx_fp32", "openvino_fp32"])
def test_the_runtime_ranks_as_torch(ranker: Path, variants: Path, name: str) -> None:
    if name.startswith("openvino"):
        for package in ("openvino", "openvino_tokenizers"):
            pytest.importorskip(package)
        make(ranker, variants, (name,))
    model = runtime.load(variants / name, threads=1)
    assert model.manifest.pairs and model.manifest.inputs == ("input_ids", "attention_mask", "token_type_ids")
    assert model.manifest.max_length == LENGTH
    for query, documents in zip(QUERIES, DOCUMENTS, strict=True):
        right = torch_scores(ranker, [(query, document) for document in documents])[:, 0]
        answer = model.rank(query, documents)
        assert [each["index"] for each in answer] == np.argsort(-right, kind="stable").tolist()
        assert [each["score"] for each in answer] == pytest.approx(sorted(right, reverse=True), abs=1e-4)


def test_types_decide(ranker: Path) -> None:
    """The test above could not fail for token types that are all 0, if they did not change the scores."""
    source = graph.read(ranker)
    arrays = source.encode(PAIRS[:4])
    assert set(arrays["token_type_ids"].ravel()) == {0, 1} and arrays["input_ids"].shape[1] <= LENGTH
    flat = {**arrays, "token_type_ids": np.zeros_like(arrays["token_type_ids"])}
    assert np.abs(source.answer(arrays) - source.answer(flat)).max() > 0.01


ROWS = Rows({"query": QUERIES, "documents": [tuple(own) for own in DOCUMENTS]})


def graded(scores: np.ndarray) -> list[list[float]]:
    """Grades by which the order of the scores is perfect."""
    grades = np.split(scores[:, 0], np.cumsum([len(own) for own in DOCUMENTS])[:-1])
    return [np.argsort(np.argsort(own)).astype(float).tolist() for own in grades]


def test_the_order_of_documents_decides(ranker: Path, variants: Path, tmp_path: Path) -> None:
    """The command, with a file of graded documents. Grades are the student's own order, so that its NDCG is 1."""
    file, out = tmp_path / "graded.jsonl", shutil.copytree(variants, tmp_path / "export")
    rows = zip(QUERIES, DOCUMENTS, graded(torch_scores(ranker, PAIRS)), strict=True)
    file.write_text("\n".join(json.dumps({"q": q, "documents": own, "grades": grades}) for q, own, grades in rows))
    words = [
        f"export.student={ranker}",
        f"out={out}",
        f"validation={file}",
        f"test={file}",
        "columns.query=q",
        "export=[onnx]",
    ]
    with hydra_ready():
        run_export(config_of("export", *words, "export.max_drop=100", folder=tmp_path))
    record = json.loads((out / "export.json").read_text())
    assert record["score"] == "ndcg_exp@3" and record["labelled"] and record["rows"]["validation"] == len(QUERIES)
    assert record["pytorch"]["score"] == pytest.approx(1) == record["variants"]["onnx_fp32"]["score"]
    assert record["pytorch"]["agreement_student"] == 1 and record["test"]["score"] <= 1
    metrics = json.loads((out / "best" / "manifest.json").read_text())["metrics"]["validation"]
    assert 0 <= metrics["ndcg_exp@3"] <= 1


def test_what_a_ranker_is_asked_when_served_is_what_it_is_asked_in_training() -> None:
    scores = np.arange(len(PAIRS), dtype=np.float32)[:, None]
    rows = Rows({**ROWS.columns, "grades": [tuple(own) for own in graded(scores)]})
    served = Rerank().served(rows)
    sizes = torch.tensor([len(own) for own in DOCUMENTS])
    groups = Groups(torch.cat([torch.zeros(1, dtype=torch.long), sizes.cumsum(0)]), int(sizes.max()))
    assert served.texts == PAIRS and served.name == "ndcg_exp@3"
    padded = groups.padded(torch.from_numpy(scores), -torch.inf).numpy()
    np.testing.assert_array_equal(served.arrays(scores)["logits"], padded)
    assert served.statistic(Head("score", 1), scores, scores).value == pytest.approx(1)


def test_a_file_of_documents_without_their_grades_is_told(ranker: Path, tmp_path: Path) -> None:
    file = tmp_path / "short.jsonl"
    file.write_text(json.dumps({"query": "a", "documents": ["b", "c"], "grades": [1]}))
    with hydra_ready(), pytest.raises(UserError, match="2 documents and 1 grades"):
        run_export(
            config_of("export", f"export.student={ranker}", f"validation={file}", "export=[onnx]", folder=tmp_path)
        )


def test_without_grades_the_order_of_the_student_decides() -> None:
    head, student = Head("score", 1), np.random.default_rng(0).normal(size=(len(PAIRS), 1)).astype(np.float32)
    student[0] = -9
    other = student.copy()
    other[0] = (
        student[: len(DOCUMENTS[0])].max() + 1
    )  # the first query's first document, which was not the first before
    assert student[: len(DOCUMENTS[0])].argmax() != 0
    both = [Measurement(name, own, 1, 1, 1, compare(own, own, 0.0, head), {32: {"p50": ms}}, ms)
            for name, own, ms in (("same", student, 2.0), ("other", other, 1.0))]  # fmt: skip
    served = Rerank().served(ROWS)
    choice = choose(both, ["same"], student, head, None, served=served)
    assert [each.agreement_teacher for each in choice.comparisons] == [None, None]
    assert choice.name == "same" and [each.measure for each in choice.comparisons] == ["agreement", "agreement"]
    assert [each.score.value for each in choice.comparisons] == pytest.approx([1, 1 - 1 / len(QUERIES)])
    taught = replace(served, teacher=served.arrays(other))
    comparisons = choose(both, ["same"], student, head, None, served=taught).comparisons
    assert [each.agreement_teacher for each in comparisons] == pytest.approx([1 - 1 / len(QUERIES), 1])


def test_pairs_that_cannot_be_exported(ranker: Path, tmp_path: Path) -> None:
    labels = student(tmp_path / "labels", "classifier")
    with pytest.raises(UserError, match=r"reads pairs of texts and answers with 3 labels.*pairs=false"):
        graph.read(labels, pairs=True)
    assert graph.read(ranker, pairs=False).head == Head("score", 1, ("quality",)) and not graph.read(labels).pairs
    write_cross_encoder(Settings({"query": "q: "}, "query"), nn.Identity(), student(tmp_path / "prompt", "regression"))
    with pytest.raises(UserError, match="puts the prompt 'query' before its pairs"):
        graph.read(tmp_path / "prompt")
