"""Every variant answers as PyTorch does, for every kind of student, and is what its name says. Needs onnx and openvino."""

import os
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from exported import CALIBRATION, KINDS, MAX_LENGTH, TEXTS, torch_says
from variants_made import Made

from mangakd import runtime
from mangakd.core.errors import UserError
from mangakd.core.spec import Head
from mangakd.export import graph, parity
from mangakd.export.choose import choose
from mangakd.export.graph import Graph
from mangakd.export.manifest import add_metrics, copy, read
from mangakd.export.measure import measure, of_student, of_variant
from mangakd.export.variants import ANY_STUDENT, VARIANTS, make

for package in ("onnx", "onnxscript", "onnxruntime", "openvino", "openvino_tokenizers", "nncf"):
    pytest.importorskip(package)

OF_HEAD = {"regression": "score", "embedding": "vector"}
HEAD = Head.of_labels(("order", "refund", "shipping"))
PRECISE = ("onnx_fp32", "openvino_fp32")
CASES = [(kind, name) for kind in KINDS for name in (ANY_STUDENT if kind == "classifier" else PRECISE)]
# Of the spread of the student's logits over TEXTS. fp16 rounds weights to 11 bits, INT8 to 8.
WITHIN = {"onnx_fp32": 1e-5, "openvino_fp32": 1e-5, "openvino_fp16": 5e-3, "onnx_int4_weights": 1.0}
INT8 = 0.2
Whole = Callable[[str], tuple[Path, Path]]


@pytest.fixture
def whole(made: Made) -> Whole:
    """whole(kind) → (student, folder of its variants); a classifier in all variants, the others in those of PRECISE."""
    return lambda kind: made(kind, ANY_STUDENT if kind == "classifier" else PRECISE)


@pytest.mark.parametrize(("kind", "name"), CASES)
def test_parity_with_pytorch(whole: Whole, kind: str, name: str) -> None:
    source, out = whole(kind)
    model = runtime.load(out / name, threads=1)
    wanted = torch_says(source, kind, TEXTS)
    within = WITHIN.get(name, INT8) * max(wanted.max() - wanted.min(), 1.0)
    for batch in (1, 3, len(TEXTS)):
        np.testing.assert_allclose(model.outputs(TEXTS, batch), wanted, atol=within, rtol=0)
    assert model.manifest.head.kind == OF_HEAD.get(kind, "labels")
    assert model.manifest.head.several == (kind == "multi_label")
    assert ("token_type_ids" in model.manifest.inputs) == (kind != "distilbert")
    assert model.labels == {"regression": ("quality",), "embedding": ()}.get(kind, ("order", "refund", "shipping"))


def test_parity_over_many_texts_at_odd_lengths_and_batch_sizes(whole: Whole) -> None:
    source, out = whole("classifier")
    texts = [f"{'so ' * (i * 7 % 61)}where is order {i}{'?' * (i % 3)}" for i in range(101)]
    wanted = torch_says(source, "classifier", texts)
    for name in ANY_STUDENT:
        model = runtime.load(out / name, threads=1)
        within = WITHIN.get(name, INT8) * (wanted.max() - wanted.min())
        for batch in (1, 7, 32):
            np.testing.assert_allclose(
                model.outputs(texts, batch), wanted, atol=within, rtol=0, err_msg=f"{name}, {batch}"
            )


def test_the_tolerance_is_what_was_measured(whole: Whole) -> None:
    source, out = whole("classifier")
    wanted = torch_says(source, "classifier", CALIBRATION)
    for name in ANY_STUDENT:
        worst = np.abs(runtime.load(out / name, threads=1).outputs(CALIBRATION, parity.BATCH) - wanted).max()
        assert worst <= read(out / name).tolerance * 1.1 + 1e-5, name
    assert read(out / "onnx_fp32").tolerance < 1e-4 < read(out / "onnx_int8").tolerance


def test_nothing_but_finished_variants_is_left(whole: Whole) -> None:
    _, out = whole("classifier")
    assert {path.name for path in out.iterdir()} == {*ANY_STUDENT, ".lock"}
    for name in ANY_STUDENT:
        content = read(out / name).content
        assert set(content["files"]) == {path.name for path in (out / name).iterdir()} - {"manifest.json"}
        assert content["versions"]["torch"] and content["source"]["folder"] == "student" and content["metrics"] == {}


def test_a_changed_variant_is_refused(whole: Whole, tmp_path: Path) -> None:
    _, out = whole("classifier")
    folder = copy(out / "openvino_int8", tmp_path / "best")
    with (folder / "openvino_model.bin").open("r+b") as file:
        file.seek(100)
        file.write(b"x")
    with pytest.raises(UserError, match=r"openvino_model\.bin"):
        read(folder)


def test_onnx_axes_are_named_and_int8_is_signed_per_channel_in_its_whole_range(whole: Whole) -> None:
    import onnx
    from onnx.numpy_helper import to_array

    _, out = whole("classifier")
    base = onnx.load(out / "onnx_fp32" / "model.onnx").graph
    shapes = [[dim.dim_param for dim in value.type.tensor_type.shape.dim] for value in base.input]
    assert shapes == [["batch", "sequence"]] * 3 and base.output[0].type.tensor_type.shape.dim[0].dim_param == "batch"
    assert not base.value_info
    for name, least in (("onnx_int8", 7), ("onnx_int8_static", 7)):  # query, key, value, output, two of the MLP, head
        held = onnx.load(out / name / "model.onnx").graph
        weights = [to_array(t) for t in held.initializer if t.data_type == onnx.TensorProto.INT8 and len(t.dims) == 2]
        assert len(weights) >= least and min(w.min() for w in weights) <= -126, name  # reduce_range stops at −64
        scales = [to_array(t) for t in held.initializer if t.name.endswith("_scale") and t.dims]
        assert any(scale.size in (32, 64) for scale in scales), name


@pytest.mark.parametrize(("name", "bits"), [("onnx_int8_weights", 8), ("onnx_int4_weights", 4)])
def test_weights_by_blocks_are_computed_in_int8_and_the_embeddings_are_small_too(
    whole: Whole, name: str, bits: int
) -> None:
    import onnx

    _, out = whole("classifier")
    held = onnx.load(out / name / "model.onnx", load_external_data=False).graph
    products = [{a.name: a.i for a in node.attribute} for node in held.node if node.op_type == "MatMulNBits"]
    assert len(products) >= 6 and all(p["accuracy_level"] == 4 and p["bits"] == bits for p in products)
    assert {p["block_size"] for p in products} == {32}
    floats = [tensor for tensor in held.initializer if tensor.data_type == onnx.TensorProto.FLOAT]
    assert all(np.prod(tensor.dims) < 8000 for tensor in floats), "no table of embeddings"


def test_the_smooth_quant_alpha_is_the_one_that_is_nearest_to_fp32(whole: Whole) -> None:
    chosen = read(whole("classifier")[1] / "openvino_int8").content["quantisation"]
    differences = chosen["rms_difference"]
    assert list(differences) == ["0.95", "0.8", "0.65", "0.5", "-1"] and all(0 < d < 10 for d in differences.values())
    assert differences[f"{chosen['smooth_quant_alpha']:g}"] == min(differences.values())
    assert read(whole("classifier")[1] / "openvino_fp32").content["quantisation"] is None


def test_folders_are_laid_out_as_hugging_face_s(whole: Whole) -> None:
    from transformers import AutoConfig, AutoTokenizer

    source, out = whole("classifier")
    for name in ANY_STUDENT:
        held = {path.name for path in (out / name).iterdir()}
        own = (
            {"openvino_model.xml", "openvino_model.bin"}
            if name.startswith("openvino")
            else {"model.onnx", "model.onnx_data"}
        )
        assert own | {"config.json", "tokenizer.json", "tokenizer_config.json", "manifest.json"} <= held, name
        tokenizer = AutoTokenizer.from_pretrained(out / name)
        assert (tokenizer.model_max_length, tokenizer.padding_side) == (MAX_LENGTH, "right")
        wanted = AutoTokenizer.from_pretrained(source)(TEXTS, truncation=True, max_length=MAX_LENGTH)
        assert tokenizer(TEXTS, truncation=True)["input_ids"] == wanted["input_ids"]
        assert AutoConfig.from_pretrained(out / name).problem_type == "single_label_classification"
        for file in ("config.json", "tokenizer_config.json"):
            assert str(out.parent) not in (out / name / file).read_text(), "no path of the machine that exports"


def test_company_is_measured(whole: Whole) -> None:
    _, out = whole("classifier")
    texts = [f"{'so ' * (i * 7 % 31)}where is order {i}" for i in range(40)]
    names = ("onnx_fp32", "onnx_int8", "onnx_int8_weights", "onnx_int4_weights", "openvino_int8")
    found = dict(zip(names, measure([of_variant(out / name) for name in names], texts, 8, lengths=()), strict=True))
    assert {name: each.company.independent for name, each in found.items()} == {
        name: name != "onnx_int8" for name in names
    }
    moved = found["onnx_int8"].company
    assert moved.texts == 40 and moved.shift > 1e-3 and moved.output > 1e-3 and 0 < moved.probability < 1
    model = runtime.load(out / "onnx_int8", threads=1)  # not measured yet, so its name says it
    np.testing.assert_array_equal(found["onnx_int8"].outputs, model.outputs(texts))


def test_openvino_variants_hold_the_precision_they_are_named_for(whole: Whole) -> None:
    import openvino as ov

    _, out = whole("classifier")

    def kinds(name: str) -> set[str]:
        nodes = ov.Core().read_model(out / name / "openvino_model.xml").get_ops()
        return {n.get_type_name() if n.get_type_name() != "Constant" else str(n.get_element_type()) for n in nodes}

    assert "<Type: 'float16'>" not in kinds("openvino_fp32") and "FakeQuantize" not in kinds("openvino_fp32")
    assert "<Type: 'float16'>" in kinds("openvino_fp16")
    assert "<Type: 'uint8_t'>" in kinds("openvino_int8_weights") and "FakeQuantize" not in kinds(
        "openvino_int8_weights"
    )
    assert "FakeQuantize" in kinds("openvino_int8")
    sizes = {
        name: (out / name / "openvino_model.bin").stat().st_size for name in ANY_STUDENT if name.startswith("openvino")
    }
    assert sizes["openvino_fp16"] < 0.55 * sizes["openvino_fp32"]
    assert max(sizes["openvino_int8"], sizes["openvino_int8_weights"]) < 0.4 * sizes["openvino_fp32"]


def test_the_tokenizer_ir_reads_as_the_tokenizer(whole: Whole) -> None:
    import openvino as ov
    import openvino_tokenizers  # noqa: F401 (registers its operations)
    from transformers import AutoTokenizer

    source, out = whole("classifier")
    compiled = ov.Core().compile_model(str(out / "openvino_fp32" / "openvino_tokenizer.xml"), "CPU")
    tokenizer = AutoTokenizer.from_pretrained(source)
    wanted = tokenizer(TEXTS, truncation=True, max_length=MAX_LENGTH, padding=True)
    said = compiled(TEXTS)
    for name in ("input_ids", "attention_mask"):
        assert said[name].tolist() == wanted[name]


def test_measured_in_a_process_of_its_own(whole: Whole) -> None:
    source, out = whole("classifier")
    own = int(next(s for s in Path("/proc/self/status").read_text().splitlines() if s.startswith("VmHWM:")).split()[1])
    subjects = [of_student(source, read(out / PRECISE[0])), *(of_variant(out / name) for name in PRECISE)]
    told: list[str] = []
    pytorch, *served = measure(subjects, TEXTS, 3, lengths=(8, 16, 32, 64), runs=5, progress=told.append)
    assert len(told) == len(subjects) + 1
    for found in (pytorch, *served):
        np.testing.assert_allclose(found.outputs, torch_says(source, "classifier", TEXTS), atol=1e-4)
        assert list(found.latency_ms) == [8, 16, 32]  # it takes 48 tokens
        assert all(0 < p["p50"] <= p["p95"] <= p["p99"] for p in found.latency_ms.values())
        assert found.milliseconds == pytest.approx((found.latency_ms[16]["p50"] * found.batch_ms) ** 0.5)
        assert 0.1 < found.megabytes < 2 and found.load_seconds > 0
    for found in served:
        # this process has torch in it; a child must not inherit that
        assert 20 < found.peak_rss_mb < 0.6 * own * 1024 / 1e6
    assert pytorch.peak_rss_mb > max(found.peak_rss_mb for found in served)


def test_no_latency_where_no_length_is_asked_for_and_the_largest_where_none_fits(whole: Whole) -> None:
    subject = of_variant(whole("classifier")[1] / "onnx_fp32")
    assert measure([subject], TEXTS, 3, lengths=())[0].latency_ms == {}
    assert list(measure([subject], TEXTS, 3, lengths=(64, 128), runs=5)[0].latency_ms) == [MAX_LENGTH]


def test_a_variant_that_cannot_be_opened_says_why(whole: Whole, tmp_path: Path) -> None:
    folder = copy(whole("classifier")[1] / "onnx_fp32", tmp_path / "changed")
    subject = of_variant(folder)
    (folder / "model.onnx").write_bytes(b"no model")
    with pytest.raises(UserError, match=r"measured in its process.*model\.onnx"):
        measure([subject], TEXTS, 3)


def test_from_variants_to_best(whole: Whole, tmp_path: Path) -> None:
    source, held = whole("classifier")
    out = tmp_path / "export"
    student = torch_says(source, "classifier", TEXTS)
    subjects = [of_variant(copy(held / name, out / name)) for name in ("onnx_fp32", "onnx_int8")]
    measured = measure(subjects, TEXTS, batch_size=3, lengths=(8,), runs=5)
    choice = choose(measured, [row.name for row in VARIANTS.values() if row.fp32], student, HEAD, student.argmax(1))
    for each in choice.comparisons:
        add_metrics(out / each.name, {"validation": each.metrics()}, each.difference)
    best = runtime.load(copy(out / choice.name, tmp_path / "best"), threads=1)
    found = best.manifest.content["metrics"]["validation"]
    assert best.manifest.variant == choice.name and found["passed"] and found["accuracy"] == 1.0
    assert best.manifest.tolerance >= found["max_difference"]


def test_a_precise_variant_that_answers_otherwise_is_not_kept(
    whole: Whole, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source, _ = whole("classifier")
    answer = Graph.answer
    monkeypatch.setattr(Graph, "answer", lambda self, arrays: answer(self, arrays) * 1.01)
    with pytest.raises(UserError, match="differs from PyTorch"):
        make(source, tmp_path, ("openvino_fp32",))
    assert [path.name for path in tmp_path.iterdir()] == [".lock"]


def test_the_folder_s_own_pooling_is_exported(tmp_path: Path) -> None:
    from conftest import save_tiny
    from exported import as_sentence_transformer

    folder = as_sentence_transformer(
        save_tiny(tmp_path / "student", labels=None, num_hidden_layers=1), "pooling_mode_cls_token"
    )
    source = graph.read(folder)
    assert source.max_length == MAX_LENGTH and source.source()["pooling"] == "cls"
    (made,) = make(folder, tmp_path / "export", ("openvino_fp32",))
    rows = runtime.load(made, threads=1).embed(TEXTS)
    assert np.linalg.norm(rows, axis=1) == pytest.approx(np.ones(len(TEXTS)), abs=1e-5)
    np.testing.assert_allclose(rows[:1], source.answer(source.encode(TEXTS[:1])), atol=1e-5)
    assert os.listdir(tmp_path / "export").count("openvino_fp32") == 1
