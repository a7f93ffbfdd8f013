"""`mangakd audit` on a real run with an export: what it verifies, and what it says of each planted change. Needs onnx."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from conftest import LABELS, REPO, save_tiny
from hydra import compose, initialize_config_dir
from warm import Command

from mangakd.cli import audit
from mangakd.cli.app import register_resolvers
from mangakd.cli.once import train
from mangakd.core.errors import UserError
from mangakd.runs import scores

for package in ("onnx", "onnxscript", "onnxruntime"):
    pytest.importorskip(package)

Seen = tuple[int, str]


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """train.csv, teacher/, and run/ with export/best, made once."""
    root = tmp_path_factory.mktemp("audit")
    save_tiny(root / "teacher")
    rows = [f"where is my {label} number {i},{label}" for i in range(20) for label in LABELS]
    (root / "train.csv").write_text("text,label\n" + "\n".join(rows) + "\n")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(scores, "check_above_chance", lambda *_: None)  # random weights are near chance: refused
        train(
            "data=files", f"data.path={root / 'train.csv'}", f"teacher.path={root / 'teacher'}", "student.layers=[1]",
            "hardware=cpu", "hardware.precision=32-true", "hardware.batch_size=8", "trainer.max_epochs=1", "baseline=false",
            "augment.copies=1", "logger=[]", f"paths.cache={root / 'cache'}", "export=[onnx]",
            "export.onnx.variants=[onnx_fp32]", folder=root / "run",
        )  # fmt: skip
    return root


@pytest.fixture
def copy(world: Path, tmp_path: Path) -> Path:
    """The world moved elsewhere, to be changed: files are found beside the run, not where they were."""
    return shutil.copytree(world, tmp_path / "moved", ignore=shutil.ignore_patterns("cache", "checkpoints"))


@pytest.fixture
def seen(capsys: pytest.CaptureFixture[str]) -> Callable[..., Seen]:
    """seen(folder, …) → exit code, and what is printed."""

    def look(folder: Path, *words: str) -> Seen:
        register_resolvers()
        capsys.readouterr()
        with initialize_config_dir(str(REPO / "conf"), version_base="1.3"):
            config = compose("audit", [f"folder={folder}", *words])
        try:
            audit.run(config)
        except SystemExit as end:
            return int(str(end.code)), capsys.readouterr().out
        return 0, capsys.readouterr().out

    return look


def test_the_record_names_teacher_data_code_and_seeds(world: Path) -> None:
    content = json.loads((world / "run" / "provenance.json").read_text())
    (data,), (model,) = content["data"]["files"], content["teacher"]["models"]
    assert (data["key"], data["relative"]) == ("data.path", "../train.csv")
    assert {name: split["rows"] for name, split in content["data"]["splits"].items()} == {
        "train": 48, "validation": 6, "test": 6,
    }  # fmt: skip
    assert len(model["weights"]) == 16 and {Path(each["path"]).name for each in model["files"]} >= {
        "model.safetensors", "config.json", "tokenizer.json",
    }  # fmt: skip
    assert content["seeds"]["seed"] == 0 and content["code"]["digest"] and "torch" in content["versions"]
    assert {each["relative"] for each in content["outputs"]} >= {
        "config.yaml",
        "student/model.safetensors",
        "metrics.json",
    }
    assert content["started"] <= content["finished"]


def test_an_exported_model_leads_back_to_the_rows(world: Path, command: Command) -> None:
    done = command("scripts/audit.py", world / "run" / "export" / "best")
    assert done.returncode == 0, done.stdout + done.stderr
    for words in (
        "onnx_fp32",
        "student ",
        "data.path=",
        "train.csv  verified",
        "weights ",
        "seeds",
        "0 changed, 0 missing",
    ):
        assert words in done.stdout, done.stdout


def test_a_moved_folder_verifies(copy: Path, seen: Callable[..., Seen]) -> None:
    code, text = seen(copy / "run")
    assert code == 0, text
    assert "0 changed, 0 missing, 0 not recorded" in text


def change(file: Path, old: str, new: str) -> None:
    text = file.read_text()
    assert old in text
    file.write_text(text.replace(old, new, 1))


def flip(file: Path, place: int) -> None:
    content = bytearray(file.read_bytes())
    content[place] ^= 1
    file.write_bytes(content)


@pytest.mark.parametrize(
    ("plant", "words"),
    [
        (lambda root: change(root / "train.csv", "number 7,refund", "number 8,refund"), "train.csv  line 24 changed"),
        (
            lambda root: change(root / "run" / "config.yaml", "alpha: 0.7", "alpha: 0.8"),
            "config.yaml  distill.alpha changed",
        ),
        (
            lambda root: flip(root / "run" / "student" / "model.safetensors", -2),
            "model.safetensors  classifier.weight changed",
        ),
        (lambda root: flip(root / "teacher" / "model.safetensors", -2), "model.safetensors  classifier.weight changed"),
        (lambda root: change(root / "teacher" / "tokenizer_config.json", "512", "128"), "model_max_length changed"),
        (lambda root: flip(root / "run" / "export" / "best" / "model.onnx", 100), "model.onnx  sha256 is"),
        (lambda root: flip(root / "run" / "predictions" / "test.npz", 100), "predictions/test.npz  sha256 is"),
    ],
)
def test_each_change_is_named(copy: Path, seen: Callable[..., Seen], plant: Callable[[Path], None], words: str) -> None:
    plant(copy)
    code, text = seen(copy / "run" / "export" / "best")
    assert code == 1 and any(line.startswith("changed: ") and words in line for line in text.splitlines()), text


def test_a_retrained_student_is_not_the_one_that_was_exported(copy: Path, seen: Callable[..., Seen]) -> None:
    flip(copy / "run" / "student" / "model.safetensors", -2)
    _, text = seen(copy / "run" / "export")
    assert "the export was made of other weights, classifier.weight changed" in text


def test_what_is_missing_is_named_and_found_elsewhere(copy: Path, seen: Callable[..., Seen], tmp_path: Path) -> None:
    (tmp_path / "attic").mkdir()
    run = shutil.move(copy / "run", tmp_path / "attic" / "run")
    record = run / "provenance.json"
    record.write_text(
        record.read_text().replace(str(json.loads(record.read_text())["data"]["files"][0]["path"]), "/no/train.csv")
    )
    code, text = seen(run / "student")
    assert code == 2 and "missing: data.path=/no/train.csv" in text
    code, text = seen(run, f"search=[{copy}]")
    assert "data.path=/no/train.csv  verified  at " in text, text
    (copy / "train.csv").write_text("text,label\nother,order\n")
    code, text = seen(run, f"search=[{copy}]")
    assert code == 2 and "has another hash" in text


def test_what_was_never_recorded(copy: Path, seen: Callable[..., Seen]) -> None:
    (copy / "run" / "provenance.json").unlink()
    code, text = seen(copy / "run")
    assert code == 2 and "not recorded: run" in text
    for folder, words in (
        (copy / "teacher", "search="),
        (copy, "holds no record"),
        (copy / "train.csv", "nothing is recorded"),
    ):
        with pytest.raises(UserError, match=words):
            seen(folder)
    with pytest.raises(UserError, match="no such folder"):
        seen(copy / "nowhere")
