"""A student of late interaction is exported as token vectors, and what is served has the scores of training's own model."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import save_tiny
from exported import CALIBRATION

from mangakd import runtime
from mangakd.cli.export import run as run_export
from mangakd.cli.latency import _timed
from mangakd.cli.once import config_of, hydra_ready
from mangakd.core.errors import UserError
from mangakd.core.spec import Head
from mangakd.data.apart import tokenise_apart
from mangakd.export import graph
from mangakd.export.hf import save_student
from mangakd.export.variants import LEAST, make
from mangakd.models import load
from mangakd.models.encoder import Encoder
from mangakd.models.late import Interaction
from mangakd.models.pooling import Pooling
from mangakd.models.sentence_transformers import Settings
from mangakd.models.token_head import TokenHead, save_token_head

for package in ("onnx", "onnxscript", "onnxruntime"):
    pytest.importorskip(package)

LENGTH = 24
QUERIES = ["where is my order?", "", "refund", "a query of more than twelve tokens about an order, is it not?"]
DOCUMENTS = ["it is on its way.", "", "refund. " * 40, "Café 東京, 12.50 €", "...", "where is my order?"]
PAIRS = [(query, document) for query in QUERIES for document in DOCUMENTS]
KINDS = {
    "bare": {"dims": 8},
    "colbert": {
        "dims": 8, "query_prefix": "[unused1]", "document_prefix": "[unused2]", "query_length": 12, "skip": [".", "?", "w"],
    },
    "attending": {"dims": 8, "query_prefix": "[unused1]", "query_length": 12, "attend": True},
}  # fmt: skip


@pytest.fixture(scope="module")
def students(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of each kind, as a run saves it; the linear layer is wide enough that tokens differ."""
    base = tmp_path_factory.mktemp("late")
    save_tiny(base / "plain", labels=None, num_hidden_layers=1)
    tokenizer = load.load_tokenizer(str(base / "plain"))
    for kind, options in KINDS.items():
        torch.manual_seed(0)
        outline = load.outline_for(str(base / "plain"), Head("score", 1), "key", Interaction.of(options, "key"))
        made = load.encoder(outline.read(torch.float32), outline.head, "student", tokenizer)
        save_student(made.model, tokenizer, base / kind, "", pooling=made.pooling, settings=Settings(max_length=LENGTH))
    return base


@pytest.fixture(scope="module")
def variants(students: Path) -> Path:
    """onnx_fp32 and onnx_int8 of `colbert`, made once."""
    make(students / "colbert", students / "export", ["onnx_fp32", "onnx_int8"], max_length=LENGTH)
    return students / "export"


def trained(folder: Path) -> Encoder:
    outline = load.outline_trained(str(folder), "key", "score")
    assert outline is not None
    tokenizer = load.load_tokenizer(str(folder))
    return load.encoder(outline.read(torch.float32), outline.head, "student", tokenizer).eval()


def scores(folder: Path, pairs: list[tuple[str, str]], cache: Path) -> np.ndarray:
    """(S, 1), by training's tokens and model."""
    model = trained(folder)
    assert isinstance(model.pooling, TokenHead)
    sides = ([pair[i] for pair in pairs] for i in range(2))
    tokenizer = load.load_tokenizer(str(folder))
    inputs = tokenise_apart(*sides, tokenizer, model.pooling.settings, LENGTH, cache).inputs(np.arange(len(pairs)), 0)
    with torch.no_grad():
        return model({name: torch.from_numpy(each) for name, each in inputs.items()}).answer.numpy()


@pytest.mark.parametrize("kind", KINDS)
def test_the_runtime_ranks_as_the_model_of_training(kind: str, students: Path, variants: Path, tmp_path: Path) -> None:
    right = scores(students / kind, PAIRS, tmp_path)
    assert np.abs(np.diff(right[:6, 0])).min() > 1e-3, "documents differ"
    if kind != "colbert":
        variants = make(students / kind, tmp_path / "export", ["onnx_fp32"], max_length=LENGTH)[0].parent
    model = runtime.load(variants / "onnx_fp32", threads=1)
    assert model.manifest.pairs and model.manifest.output == "vectors" and model.manifest.max_length == LENGTH
    np.testing.assert_allclose(model.outputs(PAIRS, 5), right, rtol=0, atol=1e-4)
    for i, query in enumerate(QUERIES):
        own, answer = right[6 * i : 6 * i + 6, 0], model.rank(query, DOCUMENTS)
        assert [each["score"] for each in answer] == pytest.approx(sorted(own, reverse=True), abs=1e-4)
        assert [own[each["index"]] for each in answer] == pytest.approx(sorted(own, reverse=True), abs=1e-4)
    source = graph.read(students / kind)
    assert source.max_length == LENGTH and source.pairs and graph.reads_pairs(students / kind)
    np.testing.assert_allclose(source.answer(source.encode(PAIRS)), right, rtol=0, atol=1e-5)


def test_openvino_and_its_int8(students: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for package in ("openvino", "openvino_tokenizers", "nncf"):
        pytest.importorskip(package)
    monkeypatch.setattr("mangakd.export.smooth_quant.ALPHAS", (0.5,))  # each takes seconds
    right, names = scores(students / "colbert", PAIRS, tmp_path), ["openvino_fp32", "openvino_fp16", "openvino_int8"]
    calibration = [(text, f"order {i}, {text}") for i, text in enumerate(CALIBRATION[:LEAST])]
    folders = make(students / "colbert", tmp_path / "export", names, calibration, LENGTH)
    for folder, within in zip(folders, (1e-4, 1e-2, 1.0), strict=True):
        np.testing.assert_allclose(runtime.load(folder, threads=1).outputs(PAIRS, 5), right, rtol=0, atol=within)


def test_the_order_of_documents_decides_and_times_are_measured(
    students: Path, variants: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The command, with a file of graded documents. Grades are the student's own order, so that its NDCG is 1."""
    monkeypatch.setattr("mangakd.cli.export.start_logging", lambda folder: None)
    own, file = scores(students / "colbert", PAIRS, tmp_path).reshape(4, 6), tmp_path / "graded.jsonl"
    grades = np.argsort(np.argsort(own)).astype(float).tolist()
    rows = [{"query": q, "documents": DOCUMENTS, "grades": each} for q, each in zip(QUERIES, grades, strict=True)]
    file.write_text("\n".join(map(json.dumps, rows)))
    out = shutil.copytree(variants, tmp_path / "out")
    words = [f"export.student={students / 'colbert'}", f"out={out}", f"validation={file}"]
    words += ["export=[onnx]", "export.onnx.variants=[onnx_fp32,onnx_int8]", "export.max_drop=100"]
    with hydra_ready():
        run_export(config_of("export", *words, folder=tmp_path))
    record = json.loads((out / "export.json").read_text())
    assert record["score"] == "ndcg_exp@3" and record["labelled"] and record["rows"]["validation"] == len(QUERIES)
    assert record["pytorch"]["score"] == pytest.approx(1) == record["variants"]["onnx_fp32"]["score"]
    for entry in (record["pytorch"], *record["variants"].values()):
        assert entry["latency_ms"][str(LENGTH)]["p50"] > 0 and entry["batch_ms"] > 0
    exact, int8 = (record["variants"][name] for name in ("onnx_fp32", "onnx_int8"))
    assert exact["max_difference"] < 1e-4 and exact["company"]["independent"]
    assert 1e-4 < int8["max_difference"] < 0.2 * own.max(), "quantised, and still the same model"
    assert runtime.load(out / "best", threads=1).use == "rank(query, documents)"


def test_a_report_times_a_query_with_all_its_documents(students: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    student, sizes = graph.read(students / "colbert"), list[int]()
    run = graph.Graph._run
    monkeypatch.setattr(
        graph.Graph, "_run", lambda own, arrays: sizes.append(len(arrays["input_ids"])) or run(own, arrays)
    )
    vocabulary = len(student.tokenizer)
    monkeypatch.setattr(
        type(student.tokenizer), "get_vocab", lambda own: pytest.fail(f"{vocabulary} words at each question")
    )
    times = _timed(student, [[(query, document) for document in DOCUMENTS] for query in QUERIES])
    assert len(times) == len(QUERIES) and min(times) > 0
    assert sizes == [1, len(DOCUMENTS)] * 2 * len(QUERIES), "a query is read once for all its documents"


def test_another_linear_layer_is_another_source(students: Path, tmp_path: Path) -> None:
    """The encoder's file is the same, and the variants would not be made again."""
    other = shutil.copytree(students / "bare", tmp_path / "other")
    model = trained(other)
    model.pooling.linear.weight.data.add_(0.1)  # type: ignore[union-attr]
    save_token_head(model.pooling, other, Settings(max_length=LENGTH))  # type: ignore[arg-type]
    one, two = (graph.read(folder).source() for folder in (students / "bare", other))
    assert one["sha256"] == two["sha256"] and one["head"] != two["head"]


def test_what_is_refused(students: Path) -> None:
    with pytest.raises(UserError, match=r"interacts late.*Leave pooling and pairs=false out"):
        graph.read(students / "bare", pairs=False)
    with pytest.raises(UserError, match=r"interacts late.*Leave pooling and pairs=false out"):
        graph.read(students / "bare", pooling=Pooling("cls"))
    with pytest.raises(UserError, match="A query is never truncated"):
        graph.read(students / "bare").encode([("order " * LENGTH, "a")])
