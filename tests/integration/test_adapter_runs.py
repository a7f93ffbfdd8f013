"""Runs whose teacher and student are folders of adapters."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from conftest import LABELS
from omegaconf import DictConfig
from transformers import AutoModelForSequenceClassification

peft = pytest.importorskip("peft", reason="adapters need peft: pip install 'mangakd[lora]'")


def test_a_teacher_and_a_student_of_adapters(
    small_run: list[str], run_here: Callable[[DictConfig, Path], None], compose: Callable[..., DictConfig], tmp_path: Path,
    tiny_fresh: Path, monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    """The student's own adapters are on its merged base, and its adapter folder loads as a model again."""
    monkeypatch.setenv("MANGAKD_CACHE", str(tmp_path / "cache"))
    built = AutoModelForSequenceClassification.from_pretrained(
        tiny_fresh, num_labels=3, id2label=dict(enumerate(LABELS))
    )
    for name in ("teacher", "student"):
        adapted = peft.get_peft_model(built, peft.LoraConfig(task_type="SEQ_CLS", r=2, target_modules=["query"]))
        with torch.no_grad():
            adapted.get_submodule(
                "base_model.model.bert.encoder.layer.0.attention.self.query.lora_B.default"
            ).weight.fill_(0.1)
        adapted.save_pretrained(tmp_path / name)
        built.config.save_pretrained(tmp_path / name)
        built = adapted.unload()
    paths = [f"teacher.path={tmp_path / 'teacher'}", f"student.path={tmp_path / 'student'}", "trainer.max_epochs=1"]
    run_here(compose(*small_run, *paths, "student.lora.rank=2"), tmp_path / "run")
    metrics = json.loads((tmp_path / "run" / "metrics.json").read_text())
    assert "teacher/test/accuracy" in metrics and not list((tmp_path / "cache" / "teachers").glob("*")), (
        "not fine-tuned"
    )
    run_here(
        compose(*small_run, f"teacher.path={tmp_path / 'run' / 'adapter'}", "trainer.max_epochs=1"), tmp_path / "next"
    )
    student = json.loads((tmp_path / "next" / "metrics.json").read_text())
    for score in ("accuracy", "ece"):
        assert student[f"teacher/test/{score}"] == pytest.approx(metrics[f"test/{score}"], abs=1e-6)
