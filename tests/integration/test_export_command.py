"""scripts/export.py and train.py export=[onnx] as real processes, and parity over a whole test split. Needs onnx."""

import json
import re
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from conftest import LABELS, save_tiny
from omegaconf import DictConfig
from transformers import AutoModelForSequenceClassification
from warm import Command

from mangakd import runtime
from mangakd.cli import export
from mangakd.cli.app import explain
from mangakd.cli.once import config_of, hydra_ready
from mangakd.core.errors import UserError
from mangakd.evaluation import predictions
from mangakd.evaluation.report.write import write_report
from mangakd.export.manifest import read
from mangakd.tasks.classification.judge import ClassificationJudge

for package in ("onnx", "onnxscript", "onnxruntime"):
    pytest.importorskip(package)

Run = Callable[[DictConfig, Path], None]
SCRIPT, ONLY = "scripts/export.py", "export.onnx.variants=[onnx_fp32]"
TWO = "export.onnx.variants=[onnx_fp32,onnx_int8]"


@pytest.fixture(scope="module")
def student(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_tiny(tmp_path_factory.mktemp("command") / "model", num_hidden_layers=1)


@pytest.fixture(scope="module")
def rows(tmp_path_factory: pytest.TempPathFactory) -> Path:
    file = tmp_path_factory.mktemp("rows") / "rows.csv"
    lines = [f"{LABELS[i % 3]} of {'long ' * (i % 9)}number {i},{LABELS[i % 3]}" for i in range(60)]
    file.write_text("question,intent\n" + "\n".join(lines) + "\n")
    return file


def test_a_student_that_mangakd_did_not_train(student: Path, rows: Path, command: Command, tmp_path: Path) -> None:
    out = tmp_path / "out"
    columns = ["text_column=question", "label_column=intent"]
    typed = [student, f"out={out}", f"validation={rows}", f"test={rows}", *columns, "export=[onnx]", ONLY]
    done = command(SCRIPT, *typed)
    assert done.returncode == 0, done.stderr[-3000:]
    for words in (
        "accuracy",
        "onnx_fp32 ships.",
        "On 60 test rows",
        "export 1/6: making onnx_fp32",
        "scripts/serve.py",
    ):
        assert words in done.stdout, done.stdout
    record = json.loads((out / "export.json").read_text())
    assert record["labelled"] and record["rows"] == {"calibration": 0, "validation": 60, "test": 60}
    assert runtime.load(out / "best").predict(["refund"])[0]["label"] in LABELS


def test_texts_alone(student: Path, rows: Path, command: Command, tmp_path: Path) -> None:
    folder = shutil.copytree(student, tmp_path / "student")
    done = command(SCRIPT, f"student={folder}", f"texts={rows}", "text_column=question", "export=[onnx]",
                   "export.onnx.variants=[onnx_fp32,onnx_int8_static]", "export.max_drop=100")  # fmt: skip
    assert done.returncode == 0, done.stderr[-3000:]
    record = json.loads((tmp_path / "export" / "export.json").read_text())
    assert record["score"] == "agreement with the student" and record["rows"] == {"calibration": 30, "validation": 30}
    assert record["max_drop"] == 100 and set(record["variants"]) == {"onnx_fp32", "onnx_int8_static"}


def test_bad_input_is_told_and_leaves_nothing(student: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    wrong = tmp_path / "wrong.csv"
    wrong.write_text("text,label\na,order\nb,refunds\n")
    this, out, onnx = f"export.student={student}", tmp_path / "out", "export=[onnx]"
    refused: list[tuple[list[str], str]] = [
        ([], "student is not set"),
        (["export.student=/nowhere"], "there is no such folder"),
        ([this, onnx], "texts is not set"),
        ([this, "export=[]"], r"export=\[\] makes nothing"),
        ([this, "export.onnx.variants=[onnx_int9]"], "did you mean onnx_int8"),
        ([this, "export.max_drop=-1"], "export.max_drop=-1"),
        ([this, onnx, ONLY, f"validation={wrong}"], "line 3 of validation=.*did you mean refund"),
        (
            [this, onnx, "export.onnx.variants=[onnx_int8_static]", f"validation={wrong}"],
            r"needs \d+ or more training texts",
        ),
        ([this, onnx, f"texts={tmp_path / 'none.txt'}"], "texts=.*there is no such file"),
    ]
    monkeypatch.setattr(export, "start_logging", lambda folder: None)
    for words, told in refused:
        with hydra_ready(), pytest.raises(Exception) as error:
            export.run(config_of("export", *words, f"out={out}", folder=tmp_path))
        assert re.search(told, explain(error.value) or repr(error.value)), words
    assert not (out / "best").exists() and not list(tmp_path.glob("out/*.partial"))


def test_a_mistake_ends_the_process_without_a_traceback(command: Command, tmp_path: Path) -> None:
    done = command(SCRIPT, "student=/nowhere", f"out={tmp_path / 'out'}")
    assert done.returncode == 1 and "error: student=/nowhere: there is no such folder" in done.stderr
    assert "Traceback" not in done.stderr and not (tmp_path / "out").exists()


@pytest.fixture
def trained(
    small_run: list[str], compose: Callable[..., DictConfig], run_here: Run, tmp_path: Path
) -> tuple[Path, list[str]]:
    """A run with export=[onnx], and what was typed for it."""
    words = [*small_run, "trainer.max_epochs=1", "export=[onnx]", TWO, "export.max_drop=100", "data.max_length=16"]
    run_here(compose(*words), tmp_path / "run")
    return tmp_path / "run", words


def test_a_run_exports_its_student_and_reports_it(trained: tuple[Path, list[str]], command: Command) -> None:
    run, _ = trained
    record = json.loads((run / "export" / "export.json").read_text())
    assert record["max_length"] == 16 and record["rows"]["validation"] == len(predictions.load(run, "validation").texts)
    markdown = (run / "report.md").read_text()
    assert "## Export" in markdown and f"{record['chosen']} ships." in markdown.replace("\\", "")
    assert (run / "report.html").read_text().count("size and latency, 16 tokens") >= 1
    # What PyTorch says of the student when it serves is what the run says of it.
    test = predictions.load(run, "test")
    model = runtime.load(run / "export" / "onnx_fp32", threads=1)
    for batch in (1, 3, 5):
        np.testing.assert_allclose(model.outputs(test.texts, batch), test.answers["student"]["logits"], atol=1e-4)
    right = (test.answers["student"]["logits"].argmax(1) == test.truth["labels"]).mean()
    assert record["test"]["score"] + record["test"]["drop_points"] / 100 == pytest.approx(right)
    (run / "report.md").unlink()
    write_report(run, ClassificationJudge(), {})
    assert "## Export" in (run / "report.md").read_text()
    done = command(SCRIPT, run, "export=[onnx]", TWO, "export.max_drop=100")
    assert done.returncode == 0, done.stderr[-3000:]
    assert json.loads((run / "export" / "export.json").read_text())["rows"] == record["rows"]


def test_a_run_that_was_killed_while_it_exported_goes_on(
    small_run: list[str],
    compose: Callable[..., DictConfig],
    run_here: Run,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    from mangakd.export import to_onnx
    from mangakd.training.callbacks import export as callback

    words = [
        *small_run,
        "trainer.max_epochs=1",
        "export=[onnx]",
        "export.max_drop=100",
        "export.onnx.variants=[onnx_fp32]",
    ]

    def killed(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr("mangakd.export.run.measure", killed)
        run_here(compose(*words), tmp_path / "run")
    assert (
        not (tmp_path / "run" / "export" / "best").exists()
        and callback.report.read(tmp_path / "run" / "export") is None
    )
    made = read(tmp_path / "run" / "export" / "onnx_fp32").content["files"]
    monkeypatch.setattr(to_onnx, "_export", lambda *_: pytest.fail("made again"))
    run_here(compose(*words, "resume=auto"), tmp_path / "run")
    assert read(tmp_path / "run" / "export" / "best").content["files"] == made


def test_preflight_tells_what_an_export_lacks(
    small_run: list[str], compose: Callable[..., DictConfig], run_here: Run, tmp_path: Path
) -> None:
    wrong = [
        ["export.onnx.variants=[onnx_fp23]", "did you mean onnx_fp32"],
        ["export.max_drop=no", "export.max_drop=no"],
    ]
    for word, told in wrong:
        with pytest.raises(UserError, match=told):
            run_here(compose(*small_run, "export=[onnx]", word), tmp_path / "run")


def test_no_export_no_section(
    small_run: list[str], compose: Callable[..., DictConfig], run_here: Run, tmp_path: Path
) -> None:
    run_here(compose(*small_run, "trainer.max_epochs=1"), tmp_path / "run")
    assert (
        "## Export" not in (tmp_path / "run" / "report.md").read_text() and not (tmp_path / "run" / "export").exists()
    )
    assert (
        AutoModelForSequenceClassification.from_pretrained(tmp_path / "run" / "student").config.id2label[0] == "order"
    )
