"""From a student's folder to export/best: what is chosen, said and kept; killed and repeated; a full disk. Needs onnx."""

import errno
import json
import shutil
from collections import namedtuple
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from exported import CALIBRATION, MAX_LENGTH, TEXTS, student, torch_says
from variants_made import Made

from mangakd import runtime
from mangakd.core.errors import UserError
from mangakd.evaluation.report.export import section
from mangakd.export import choose, to_onnx, variants
from mangakd.export.data import Data, Split, of_file, of_texts
from mangakd.export.manifest import copy, read
from mangakd.export.run import Options, export, steps
from mangakd.export.spread import spread
from mangakd.export.variants import Variant, make

for package in ("onnx", "onnxscript", "onnxruntime"):
    pytest.importorskip(package)

NAMES = ("onnx_fp32", "onnx_int8")
OPTIONS = Options(max_length=MAX_LENGTH, batch_size=3)
LABELS = ("order", "refund", "shipping")


@pytest.fixture(scope="module")
def source(made: Made) -> Path:
    return made("classifier", NAMES)[0]


def begun(made: Made, kind: str, names: tuple[str, ...], out: Path) -> Path:
    """`out` with variants that an export finds there, and need not make."""
    for name in names:
        shutil.copytree(made(kind, names)[1] / name, out / name)
    return out


def labelled(folder: Path, texts: list[str]) -> Split:
    """Labels that the student gives, but for the first text's."""
    said = torch_says(folder, "classifier", texts).argmax(1)
    said[0] = (said[0] + 1) % 3
    return Split(texts, [(LABELS[i],) for i in said], np.eye(3)[said][:, [2, 0, 1]], ("shipping", "order", "refund"))


@pytest.fixture(scope="module")
def done(made: Made, source: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, Any], list[str]]:
    """(the export folder, its record, what was said meanwhile)."""
    out, told = begun(made, "classifier", NAMES, tmp_path_factory.mktemp("exported") / "export"), list[str]()
    data = Data(CALIBRATION, labelled(source, TEXTS), labelled(source, CALIBRATION))
    return (
        out,
        export(source, out, NAMES, data, Options(max_length=MAX_LENGTH, max_drop=100), progress=told.append),
        told,
    )


def test_the_record_holds_all_of_it(done: Any) -> None:
    out, record, told = done
    assert json.loads((out / "export.json").read_text()) == record
    assert list(record["variants"]) == list(NAMES) and record["chosen"] in NAMES
    assert record["rows"] == {"calibration": 0, "validation": 7, "test": 24}
    assert record["pytorch"]["score"] == pytest.approx(6 / 7) and record["score"] == "accuracy"
    assert record["variants"]["onnx_fp32"]["score"] == pytest.approx(6 / 7)
    # The teacher's columns are in another order; it says what the labels say.
    assert record["variants"]["onnx_fp32"]["agreement_teacher"] == pytest.approx(6 / 7)
    assert record["pytorch"]["drop_points"] == 0 and list(record["pytorch"]["latency_ms"]) == ["32"]
    assert record["test"]["score"] == pytest.approx(23 / 24, abs=0.1)
    assert len(told) == steps(NAMES) and told[0] == "making onnx_fp32" and "scoring pytorch" in told[2]


def test_best_is_the_chosen_one_with_its_test_score(done: Any) -> None:
    out, record, _ = done
    best = runtime.load(out / "best", threads=1)
    assert best.manifest.variant == record["chosen"]
    assert set(best.manifest.content["metrics"]) == {"validation", "test"}
    other = next(name for name in NAMES if name != record["chosen"])
    assert set(read(out / other).content["metrics"]) == {"validation"}, "test is asked of the chosen one alone"
    assert {path.name for path in out.iterdir() if path.is_dir()} == {*NAMES, "best"}


def test_the_manifest_says_what_company_does(done: Any) -> None:
    out, record, _ = done
    for name in NAMES:
        content, independent = read(out / name).content, name == "onnx_fp32"
        assert content["rows_independent"] is independent is record["variants"][name]["company"]["independent"]
        assert content["metrics"]["validation"]["company"] == record["variants"][name]["company"]
        assert record["variants"][name]["batch_ms"] > 0


def test_what_is_there_is_not_made_again(
    source: Path, done: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = shutil.copytree(done[0], tmp_path / "export")
    with monkeypatch.context() as patch:
        patch.setattr(to_onnx, "_base", lambda *_: pytest.fail("made again"))
        make(source, out, NAMES, CALIBRATION, MAX_LENGTH)
    (out / "onnx_int8" / "model.onnx").write_bytes(b"tampered")
    before = (out / "onnx_fp32" / "manifest.json").read_bytes()
    make(source, out, NAMES, CALIBRATION, MAX_LENGTH)
    assert runtime.load(out / "onnx_int8").predict(["refund"]), "one that is damaged is made again"
    assert (out / "onnx_fp32" / "manifest.json").read_bytes() == before
    make(source, out, NAMES, CALIBRATION, MAX_LENGTH - 1)
    assert read(out / "onnx_fp32").max_length == MAX_LENGTH - 1, "and one that would come out otherwise"


def test_where_nothing_passes_fp32_ships_and_the_report_says_why(
    made: Made, source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    judge = choose.judge
    monkeypatch.setattr(choose, "judge", lambda *given: tuple(replace(each, passed=False) for each in judge(*given)))
    data = Data(CALIBRATION, labelled(source, TEXTS))
    record = export(source, begun(made, "classifier", NAMES, tmp_path / "export"), NAMES, data, OPTIONS)
    assert record["chosen"] == "onnx_fp32" == read(tmp_path / "export" / "best").variant
    (shown,) = section(tmp_path)
    assert "onnx_fp32 ships. No variant passes the limit of 0.3 points, so fp32 ships" in str(shown.blocks[0])
    assert record["test"] is None and "test rows" not in str(shown.blocks[1])


@pytest.mark.parametrize("kind", ["multi_label", "regression", "embedding"])
def test_every_kind_of_head_without_labels(kind: str, made: Made, tmp_path: Path) -> None:
    names = ("onnx_fp32",)
    out = begun(made, kind, names, tmp_path / "export")
    data = of_texts([*CALIBRATION, *TEXTS], 10, "texts")
    record = export(made(kind, names)[0], out, names, data, Options(max_length=MAX_LENGTH))
    assert record["labelled"] is False and "student" in record["score"]
    assert record["rows"] == {"calibration": 0, "validation": 21}
    assert record["pytorch"]["score"] == pytest.approx(1) and record["variants"]["onnx_fp32"]["score"] > 0.999
    (shown,) = section(tmp_path)
    assert record["score"] in shown.blocks[1].headers  # type: ignore[union-attr]


def test_labels_of_every_problem(made: Made, tmp_path: Path) -> None:
    kinds, names = ("classifier", "multi_label", "regression"), ("onnx_fp32",)
    manifest = {kind: read(made(kind, names)[1] / "onnx_fp32") for kind in kinds}
    split = Split(["a", "b"], [("refund",), ("order", "shipping")], origin="validation=x.csv")
    assert split.targets(manifest["multi_label"]).tolist() == [[0, 1, 0], [1, 0, 1]]  # type: ignore[union-attr]
    with pytest.raises(UserError, match=r"row 2 of validation=x\.csv has not one label \(order, shipping\)"):
        split.targets(manifest["classifier"])
    with pytest.raises(UserError, match=r"row 1 of .*'refnd'.*did you mean refund"):
        Split(["a"], [("refnd",)], origin="validation=x.csv").targets(manifest["classifier"])
    numbers = Split(["a", "b"], [("1.5",), ("-2",)])
    assert numbers.targets(manifest["regression"]).tolist() == [1.5, -2]  # type: ignore[union-attr]
    with pytest.raises(UserError, match=r"row 1 .*refund.* gives a number"):
        split.targets(manifest["regression"])
    (tmp_path / "a.csv").write_text("text,label\na,order|refund\nb,\n")
    joined = of_file(str(tmp_path / "a.csv"), "validation", "text", "label")
    assert joined.targets(manifest["multi_label"]).tolist() == [[1, 1, 0], [0, 0, 0]]  # type: ignore[union-attr]
    with pytest.raises(
        UserError, match=r"line 2 of validation=.* has the label 'order\|refund', which the student does not know"
    ):
        joined.targets(manifest["classifier"])


def test_files(tmp_path: Path) -> None:
    file = tmp_path / "rows.csv"
    file.write_text("text,label\nwhere is it,order\n,refund\n")
    split = of_file(str(file), "validation", "text", "label")
    assert split.texts == ["where is it", ""] and split.labels == [("order",), ("refund",)], "an empty text is a text"
    without = of_file(str(file), "validation", "text", "intent")
    assert without.texts == ["where is it"] and without.labels is None
    with pytest.raises(UserError, match=r"validation=.* has no column 'question'"):
        of_file(str(file), "validation", "question", "label")
    lines = tmp_path / "texts.txt"
    lines.write_text("one\ntwo\n")
    assert of_file(str(lines), "texts", "text", "label").texts == ["one", "two"]


def test_a_full_disk_is_told_and_leaves_nothing_half_written(
    source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    usage = namedtuple("usage", "total used free")
    free = [10**9]
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage(10**9, 10**9, free[-1]))
    errors = [OSError(errno.ENOSPC, "No space left on device"), RuntimeError("basic_ios::clear: iostream error")]

    def full(graph: Any, batches: Any, scratch: Path, folder: Path) -> None:
        (folder / "model.onnx").write_bytes(b"half")
        if isinstance(errors[0], RuntimeError):  # openvino says no more than that
            free.append(10**5)
        raise errors[0]

    row = variants.VARIANTS["onnx_int8"]
    broken = Variant(**{**row.__dict__, "make": full})
    monkeypatch.setitem(variants.VARIANTS, "onnx_int8", broken)
    while errors:
        with pytest.raises(UserError, match=r"disk of .* is full\. .*only the missing variants are made"):
            make(source, tmp_path, NAMES, CALIBRATION, MAX_LENGTH)
        assert {path.name for path in tmp_path.iterdir()} == {"onnx_fp32", ".lock"}
        errors.pop(0)
    with pytest.raises(UserError, match=r"2 variants needs up to .* GB, and 0.00 GB are free"):
        make(source, tmp_path / "other", NAMES, CALIBRATION, MAX_LENGTH)
    assert [path.name for path in (tmp_path / "other").iterdir()] == [".lock"]


def test_a_best_that_could_not_be_copied_whole_is_not_there(
    done: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(source: Path, target: Path) -> None:
        target.mkdir()
        (target / "model.onnx").write_bytes(b"half")
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(shutil, "copytree", full)
    with pytest.raises(OSError, match="No space left"):
        copy(done[0] / "onnx_fp32", tmp_path / "best")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("options", "words"),
    [({"max_drop": -1}, "export.max_drop=-1"), ({"max_drop": "x"}, "export.max_drop=x"), ({"batch_size": 0}, "batch_size=0"),
     ({"threads": True}, "threads=True"), ({"max_length": 1}, "max_length=1")],
)  # fmt: skip
def test_wrong_options(options: dict[str, Any], words: str) -> None:
    with pytest.raises(UserError, match=words):
        Options(**options)


def test_a_variant_named_twice_or_none(source: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="named twice"):
        make(source, tmp_path, ("onnx_fp32", "onnx_fp32"))
    with pytest.raises(UserError, match="no variant to make"):
        make(source, tmp_path, ())


def test_texts_sorted_by_label_are_calibrated_and_judged_on_from_end_to_end(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert spread("abcdefghij", 3) == ["a", "d", "g"] and spread("ab", 3) == ["a", "b"] and spread("", 3) == []
    texts = [f"{label} {i}" for label in "abc" for i in range(200)]
    for half in ((data := of_texts(texts, 300, "texts")).calibration, data.validation.texts):
        assert {text[0] for text in half} == set("abc") and len(half) == 300
    seen: list[str] = []
    monkeypatch.setattr(variants, "_make", lambda row, source, texts, out: seen.extend(texts) or out)
    make(student(tmp_path / "student", "classifier"), tmp_path / "out", ["onnx_int8_static"], texts, MAX_LENGTH)
    assert len(seen) == variants.CALIBRATION and {text[0] for text in seen} == set("abc")
