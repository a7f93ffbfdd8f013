"""Which weights a run reads, and how often: preflight none, a run each model once, and no teacher that nothing asks."""

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from conftest import checked, save_tiny
from omegaconf import DictConfig
from safetensors.torch import load_file, save_file
from transformers import AutoModelForSequenceClassification

from mangakd.core.errors import UserError
from mangakd.core.requires import Need
from mangakd.core.spec import Head
from mangakd.models import load, outline
from mangakd.models.outline import weights_digest
from mangakd.runs.run import Run
from mangakd.store.manifest import Manifest
from mangakd.teachers.base import digest

Compose = Callable[..., DictConfig]
Reads = list[Path]
SIZES = ["student=bert_mini", "student.layers=null"]


@pytest.fixture
def reads(monkeypatch: pytest.MonkeyPatch) -> Reads:
    """The folders whose models were read, in order."""
    folders: Reads = []
    real = AutoModelForSequenceClassification.from_pretrained

    def read(where: str, *args: object, **options: object) -> object:
        folders.append(Path(where))
        return real(where, *args, **options)

    monkeypatch.setattr(AutoModelForSequenceClassification, "from_pretrained", read)
    return folders


@pytest.fixture
def prepare(base: list[str], compose: Compose, tmp_path: Path) -> Callable[..., Run]:
    """prepare(*overrides) → a run that has passed preflight."""
    return lambda *more: checked(compose(*base, "data.max_length=16", "baseline=true", *more), tmp_path / "run")


def begin(run: Run) -> None:
    """What a run does with its models, without the training."""
    teacher = run.material.teacher().prepare(torch.device("cpu"), Need(answer=True))
    student, baseline = run.material.students.build().model, run.material.students.build().model
    assert teacher.members == 1 and student is not baseline and weights_digest(student) == weights_digest(baseline)
    assert all(parameter.requires_grad for parameter in student.parameters()) and student.training


def test_preflight_reads_headers_alone(
    prepare: Callable[..., Run], tiny_teacher: Path, reads: Reads, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(outline, "_reader", None)
    prepare()
    prepare("student.layers=null", f"student.path={tiny_teacher}")
    assert reads == []


def test_each_model_is_read_once(prepare: Callable[..., Run], tiny_teacher: Path, tmp_path: Path, reads: Reads) -> None:
    own = Path(shutil.copytree(tiny_teacher, tmp_path / "own"))
    path = ["student.layers=null", f"student.path={own}"]
    for overrides, wanted in (
        (["teacher=local"], [tiny_teacher]),  # the student's layers come from the same one
        (["teacher=local", *path], [tiny_teacher, own]),
        (["teacher=cached"], [tiny_teacher]),  # the store is filled
        (["teacher=cached"], [tiny_teacher]),  # the store is full, and the student takes layers
        (["teacher=cached", *path], [own]),
        (["teacher=cached", *SIZES], []),
    ):
        reads.clear()
        begin(prepare(*overrides, f"teacher.path={tiny_teacher}"))
        assert reads == wanted, overrides


def test_a_teacher_that_is_fine_tuned_is_read_before_and_after(
    prepare: Callable[..., Run], tiny_fresh: Path, reads: Reads
) -> None:
    for first in (True, False):
        run = prepare(f"teacher.path={tiny_fresh}", "teacher.fit.epochs=1")
        begin(run)
        (folder,) = (run.given.cache / "teachers").iterdir()
        assert reads == ([tiny_fresh, folder] if first else [folder])
        reads.clear()


def test_names_of_stores_and_fine_tuned_teachers_are_those_of_before(
    prepare: Callable[..., Run], tiny_fresh: Path, tiny_teacher: Path
) -> None:
    """They were digests of loaded tensors."""
    for dtype in ("float32", "bfloat16"):
        run = prepare("teacher=cached", f"teacher.path={tiny_teacher}", f"hardware.teacher.dtype={dtype}")
        model = load.trained_classifier(str(tiny_teacher), "teacher.path").to(getattr(torch, dtype))
        manifest: Manifest = run.material.teacher()._reader.manifest
        assert manifest.teacher == digest(weights_digest(model), *run.parts.corpus.labels)
    torch.manual_seed(7)
    base = load.outline_for(str(tiny_fresh), Head.of_labels(("a", "b")), "teacher.path")
    assert base.digest(torch.float32) == weights_digest(load.read_model(base, str(tiny_fresh), "teacher.path"))
    torch.manual_seed(7)
    other = AutoModelForSequenceClassification.from_pretrained(tiny_fresh, num_labels=2, dtype=torch.float32)
    assert base.digest(torch.float32) == weights_digest(other), "an outline leaves torch's random state as it was"


@pytest.mark.parametrize("legacy", [False, True])
def test_a_checkpoint_in_half_precision(
    legacy: bool, prepare: Callable[..., Run], tiny_teacher: Path, tmp_path: Path
) -> None:
    half = Path(shutil.copytree(tiny_teacher, tmp_path / "half"))
    weights = {name: tensor.half() for name, tensor in load_file(half / "model.safetensors").items()}
    if legacy:
        (half / "model.safetensors").unlink()
        torch.save(weights, half / "pytorch_model.bin")
    else:
        save_file(weights, half / "model.safetensors", metadata={"format": "pt"})

    def dtypes(*overrides: str) -> list[torch.dtype]:
        run = prepare(f"teacher.path={half}", "student.layers=null", f"student.path={half}", *overrides)
        teacher, student = run.material.teacher(), run.material.students.build()
        logits = teacher(run.material.splits["test"].collate([0, 1])).logits
        assert logits is not None and logits.isfinite().all()
        return [teacher.encoders[0].model.dtype, student.model.dtype]

    assert dtypes() == [torch.float16, torch.float32], "a teacher answers as it is, a student learns in fp32"
    assert dtypes("hardware.teacher.dtype=float32") == [torch.float32, torch.float32]


def test_a_vocabulary_is_digested_once(
    prepare: Callable[..., Run], tiny_teacher: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    digests, real = [], load._vocabulary_digest
    monkeypatch.setattr(load, "_vocabulary_digest", lambda tokenizer: digests.append(tokenizer) or real(tokenizer))
    begin(prepare())
    assert len(digests) == 1


def test_weights_that_are_no_numbers(prepare: Callable[..., Run], tmp_path: Path) -> None:
    folder = save_tiny(tmp_path / "nan")
    weights = load_file(folder / "model.safetensors") | {"classifier.bias": torch.full((3,), float("nan"))}
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    for overrides in ([f"teacher.path={folder}"], ["student.layers=null", f"student.path={folder}"]):
        run = prepare(*overrides)
        with pytest.raises(UserError, match=r"(teacher|student)\.path=.* classifier\.bias holds what is no number"):
            begin(run)
