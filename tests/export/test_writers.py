"""Exported encoder–decoders write what PyTorch writes, for T5, BART and Marian. Needs onnx and openvino."""

import json
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import pytest
import torch
from tiny_seq2seq import save as save_random
from transformers import AutoModelForSeq2SeqLM, AutoTokenizer
from writers import ARCHITECTURES, MAX_LENGTH, NEW, ODD, PAIRS, SOURCES, torch_writes, writer

from mangakd import runtime
from mangakd.core.errors import UserError
from mangakd.core.spec import Head
from mangakd.data.seq2seq import Reader, SourceOptions
from mangakd.evaluation.report import export as report
from mangakd.export.choose import choose
from mangakd.export.company import Company, compare
from mangakd.export.data import Data, Split
from mangakd.export.manifest import read
from mangakd.export.measure import Measurement
from mangakd.export.run import Options, export
from mangakd.export.seq2seq import NEW_TOKENS, Writing
from mangakd.export.student import read as read_student
from mangakd.export.variants import make
from mangakd.runtime.decoding import BLANK
from mangakd.runtime.late_model import reader_of
from mangakd.runtime.turns import Turns

for package in ("onnx", "onnxscript", "onnxruntime", "openvino", "openvino_tokenizers", "nncf"):
    pytest.importorskip(package)

_ROOT = TemporaryDirectory(prefix="mangakd-writers-")  # goes with the process
PRECISE, SMALL = (
    "onnx_fp32",
    ("onnx_int8", "onnx_int8_weights", "openvino_fp16", "openvino_int8_weights", "openvino_int8"),
)
COUNT = {"t5": 494, "bart": 50, "marian": 50}
TURNS = Turns(" | ", "rewrite: {turns}")


@cache
def student(kind: str) -> Path:
    return writer(Path(_ROOT.name) / kind / "student", kind)


@cache
def variants(kind: str) -> Path:
    """The folder of the variants: all of a T5, of the others the one in fp32."""
    out, names = Path(_ROOT.name) / kind / "export", [PRECISE, *SMALL, "openvino_fp32"] if kind == "t5" else [PRECISE]
    make(student(kind), out, names, SOURCES[:20], MAX_LENGTH, writing=Writing(NEW, TURNS))
    return out


@cache
def expected(kind: str) -> list[str]:
    return torch_writes(student(kind), [*SOURCES[: COUNT[kind]], *ODD])


@pytest.mark.parametrize("kind", ARCHITECTURES)
def test_fp32_writes_what_pytorch_writes(kind: str) -> None:
    """Of T5 500 texts."""
    texts, wanted = [*SOURCES[: COUNT[kind]], *ODD], expected(kind)
    assert (
        len(set(wanted)) > 0.5 * COUNT[kind]
        and np.mean([a == b for a, (_, b) in zip(wanted, PAIRS, strict=False)]) > 0.9
    )
    model = runtime.load(variants(kind) / PRECISE, threads=1)
    assert model.rewrite(texts) == wanted
    assert model.rewrite(texts[-40:], 1) == wanted[-40:], "alone as in a batch"
    assert read(variants(kind) / PRECISE).tolerance < 1e-4


@pytest.mark.parametrize("name", [*SMALL, "openvino_fp32"])
def test_other_variants_write_nearly_always_the_same(name: str) -> None:
    texts, wanted = SOURCES[:60], expected("t5")[:60]
    model = runtime.load(variants("t5") / name, threads=1)
    written = model.rewrite(texts, 7)
    same = np.mean([a == b for a, b in zip(written, wanted, strict=True)])
    assert same == 1 if "fp" in name else same >= 0.9
    assert model.rewrite(texts[:10], 1) == written[:10], "alone as in a batch"
    sizes = [sum(file.stat().st_size for file in (variants("t5") / each).glob("*coder.*")) for each in (name, PRECISE)]
    assert sizes[0] < {"openvino_fp32": 1.5}.get(name, 0.8) * sizes[1]


def test_what_lies_in_a_folder() -> None:
    folder = variants("t5") / PRECISE
    content = json.loads((folder / "manifest.json").read_text())
    assert set(content["files"]) == {
        "encoder.onnx", "encoder.onnx_data", "decoder.onnx", "decoder.onnx_data", "config.json", "generation_config.json",
        "tokenizer.json", "tokenizer_config.json",
    }  # fmt: skip
    assert content["decoding"] == {
        "model": "decoder.onnx", "layers": 1, "heads": 4, "size": 12, "start": 0, "stops": [1], "vocabulary": 400,
        "max_new_tokens": NEW,
    }  # fmt: skip
    assert content["head"] == {"kind": "tokens", "outputs": 407, "names": [], "several": False, "source": True}
    assert read(variants("t5") / "openvino_int8").model.name == "openvino_encoder.xml"
    assert read(variants("t5") / "openvino_int8").content["quantisation"]["smooth_quant_alpha"] is not None


def test_cross_attention_reads_keys_that_the_encoder_computed_once() -> None:
    """No projection of the source is left in the decoder: of 4 layers' keys and values there is none of the source's width."""
    import onnx

    decoder = onnx.load(variants("t5") / PRECISE / "decoder.onnx").graph
    products = [
        node for node in decoder.node if node.op_type in ("MatMul", "Gemm") and node.input[1] in _weights(decoder)
    ]
    assert len(products) == 4 + 2 + 2 + 1  # q k v o of self-attention, q o of cross-attention, the MLP, the head


def _weights(graph: object) -> set[str]:
    return {tensor.name for tensor in graph.initializer}  # type: ignore[attr-defined]


@pytest.mark.parametrize("kind", ["t5 untied", "bart"])
def test_random_models_greedily_and_without_a_cache(kind: str, tmp_path: Path) -> None:
    """The tokens of a loop of one forward a token; a BART begins with the token that ends its texts."""
    folder = save_random(tmp_path / "student", kind)
    model = AutoModelForSeq2SeqLM.from_pretrained(folder).eval()
    tokenizer, texts = AutoTokenizer.from_pretrained(folder), ["order one", "a b c d", "b"]
    out = make(folder, tmp_path / "export", [PRECISE], max_length=16, writing=Writing(6))[0]
    rows = runtime.load(out, threads=1).outputs(texts)
    stop, known = tokenizer.eos_token_id, len(tokenizer)
    for text, row in zip(texts, rows, strict=True):
        source, ids = tokenizer(text, return_tensors="pt").input_ids, [model.config.decoder_start_token_id]
        while len(ids) <= 6 and (len(ids) == 1 or ids[-1] != stop):
            with torch.no_grad():
                logits = model(input_ids=source, decoder_input_ids=torch.tensor([ids])).logits[0, -1, :known]
            ids.append(int(logits.argmax()))
        assert row.tolist() == ids[1:] + [BLANK] * (7 - len(ids))


def test_turns_are_read_as_in_training() -> None:
    manifest, options = read(variants("t5") / PRECISE), SourceOptions(TURNS.separator, TURNS.template)
    graph = read_student(student("t5"), MAX_LENGTH, writing=Writing(NEW, TURNS))
    reader, tokeniser = Reader(graph.tokenizer, options, MAX_LENGTH), reader_of(manifest)
    conversations = [tuple(SOURCES[i : i + 1 + i % 5]) for i in range(40)] + [
        ("", "a", " "),
        ("where " * 9, "b", "<pad>"),
    ]
    assert any(reader.source(turns)[1] for turns in conversations)
    for turns in conversations:
        ids = tokeniser([turns])[0].ids
        assert ids == reader.source(turns)[0] == graph.encode([turns])["input_ids"][0].tolist()


def test_the_gate_compares_exact_match_with_references(tmp_path: Path) -> None:
    """Of 30 references 3 are wrong: 90 % for the student and for a variant that writes the same."""
    labels = [(target if i % 10 else "other",) for i, (_, target) in enumerate(PAIRS[:30])]
    data = Data(SOURCES[:20], Split(SOURCES[:30], labels), Split(SOURCES[30:40]))
    record = export(student("t5"), tmp_path, ["onnx_fp32"], data, Options(max_length=MAX_LENGTH, max_new_tokens=NEW))
    own = record["variants"]["onnx_fp32"]
    assert record["score"] == "exact_match" and record["labelled"] and record["max_new_tokens"] == NEW
    assert record["pytorch"]["score"] == own["score"] == pytest.approx(0.9)
    assert own["drop_points"] == 0 and own["agreement_student"] == 1 and own["max_difference"] == 0
    assert own["company"]["independent"] and own["company"]["moved"] == 0 and list(own["latency_ms"]) == [0]
    assert record["test"]["score"] == 1, "without references the student's own texts are the truth"
    assert (tmp_path / "best" / "decoder.onnx").is_file()
    table = report.quality(json.loads((tmp_path / "export.json").read_text()))
    assert "other texts" in table.headers


def test_what_cannot_be_exported(tmp_path: Path) -> None:
    t5 = student("t5")
    with pytest.raises(UserError, match="onnx_int8_static is no variant of a student that writes"):
        make(t5, tmp_path, ["onnx_fp32", "onnx_int8_static"], SOURCES)
    with pytest.raises(UserError, match="writes texts; pooling and pairs=true are of other students"):
        make(t5, tmp_path, ["onnx_fp32"], pairs=True)
    with pytest.raises(UserError, match=f"max_new_tokens=99, but the decoder of .* has {MAX_LENGTH} positions"):
        read_student(student("bart"), writing=Writing(99))
    with pytest.raises(UserError, match=r"export\.max_new_tokens=0 must be a whole number from 1 on"):
        Options(max_new_tokens=0)
    assert read_student(t5).decoding.max_new_tokens == NEW_TOKENS  # type: ignore[union-attr]


def test_a_variant_that_writes_other_texts_fails() -> None:
    """2 of 100 texts are others: 2 points of exact match, above a limit of 0.3 and below one of 3."""
    own = np.array([f"text {i}" for i in range(100)], dtype=object)
    other = own.copy()
    other[:2] = "wrong"
    company = Company(1, 0.0, 0.0, None, True)
    given = [
        Measurement(name, texts, 1.0, 1.0, 1.0, company, {0: {"p50": ms, "p95": ms, "p99": ms}}, ms)
        for name, texts, ms in (("onnx_fp32", own, 2.0), ("onnx_int8", other, 1.0))
    ]
    head = Head("tokens", 9, source=True)
    strict, lax = (choose(given, ["onnx_fp32"], own, head, own, max_drop=drop) for drop in (0.3, 3.0))
    assert (strict.name, lax.name) == ("onnx_fp32", "onnx_int8")
    worse = strict.comparisons[1]
    assert worse.drop.value == pytest.approx(2) and worse.agreement_student == worse.score.value == pytest.approx(0.98)
    assert worse.difference == pytest.approx(0.02) and not worse.passed


def test_texts_of_company() -> None:
    """One text of four is another in a batch: the variant is served text by text; so it is if a logit moves."""
    head, alone = Head("tokens", 9, source=True), np.array([[1, 2], [3, BLANK], [4, 5], [6, 7]])
    together = alone.copy()
    together[1, 1] = 8
    assert compare(alone, together, 0.0, head, 10.0).output == 0.25
    assert [compare(alone, other, shift, head, 10.0).independent for other, shift in
            ((alone, 0.0), (together, 0.0), (alone, 1e-3))] == [True, False, False]  # fmt: skip
