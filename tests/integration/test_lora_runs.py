"""Runs with adapters: what learns, what checkpoints hold, how they resume, and the merged student that is saved."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from conftest import LABELS, checked, save_tiny
from omegaconf import DictConfig
from safetensors.torch import load_file, save_file
from transformers import AutoModelForSequenceClassification

from mangakd.core.errors import UserError
from mangakd.training.callbacks.save_last import SaveLast

pytest.importorskip("peft", reason="adapters need peft: pip install 'mangakd[lora]'")
Compose = Callable[..., DictConfig]
RunHere = Callable[[DictConfig, Path], None]
StoppedAt = Callable[..., None]


@pytest.fixture
def source(tmp_path: Path) -> Path:
    """The student's base, which a test may change."""
    return save_tiny(tmp_path / "source", labels=None)


@pytest.fixture
def typed(small_run: list[str], source: Path) -> list[str]:
    lora = ["student.lora.rank=2", "student.lora.dropout=0.1", "optim.lr=1e-2"]
    return [*small_run, f"student.path={source}", *lora, "trainer.max_epochs=2", "checkpoint.every_steps=4"]


def read(file: Path) -> dict[str, Any]:
    return torch.load(file, map_location="cpu", weights_only=False)


def test_adapters_and_head_learn_and_the_student_is_merged(
    typed: list[str], run_here: RunHere, compose: Compose, tmp_path: Path, source: Path, monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    seen: dict[str, Any] = {}
    start = SaveLast.on_train_start

    def note(callback: SaveLast, trainer: Any, module: Any) -> None:
        start(callback, trainer, module)
        seen["optimizer"] = sum(p.numel() for group in trainer.optimizers[0].param_groups for p in group["params"])
        seen["all"] = sum(p.numel() for p in module.student.parameters())

    monkeypatch.setattr(SaveLast, "on_train_start", note)
    run_here(compose(*typed, "baseline=true", "losses=[hard_label,output,hidden]"), tmp_path / "run")
    assert "4 heads) with adapters of rank 2; losses" in capsys.readouterr().out
    matrices = 3 * (4 * (32 + 32) + 2 * (32 + 64))  # in + out of each
    head = 32 * 32 + 32 + 3 * 32 + 3  # pooler and classifier
    projection = 32 * 32 + 32
    assert seen["optimizer"] == pytest.approx(2 * matrices + head + projection, abs=projection)
    assert seen["optimizer"] < seen["all"] / 20

    states = read(tmp_path / "run" / "checkpoints" / "best.ckpt")["state_dict"]
    of_student = [name for name in states if name.startswith("student.")]
    assert of_student and all("lora_" in name or "pooler" in name or "classifier" in name for name in of_student)

    student = AutoModelForSequenceClassification.from_pretrained(tmp_path / "run" / "student")
    base = load_file(source / "model.safetensors")
    moved = {n for n, w in student.bert.state_dict().items() if not torch.equal(w, base[n])}
    layers = {f"encoder.layer.{i}.{each}.weight" for i in range(3) for each in (
        "attention.self.query", "attention.self.key", "attention.self.value", "attention.output.dense", "intermediate.dense",
        "output.dense")}  # fmt: skip
    assert moved == layers | {"pooler.dense.weight", "pooler.dense.bias"}
    assert tuple(student.config.id2label.values()) == LABELS

    adapter = load_file(tmp_path / "run" / "adapter" / "adapter_model.safetensors")
    name = "bert.encoder.layer.0.attention.self.query"
    delta = 2 * adapter[f"base_model.model.{name}.lora_B.weight"] @ adapter[f"base_model.model.{name}.lora_A.weight"]
    torch.testing.assert_close(student.get_parameter(f"{name}.weight").detach(), base[f"{name[5:]}.weight"] + delta)


def test_a_stopped_run_resumes_bit_for_bit(
    typed: list[str], run_here: RunHere, compose: Compose, tmp_path: Path, stopped_at: StoppedAt
) -> None:
    """In the second of two stages, the first of which freezes a layer with its adapters."""
    stages = ["+stages.first={epochs: 1, frozen: [1, embeddings]}", "~stages.distil", "+stages.second={epochs: 1}"]
    typed = [*typed, *stages]
    run_here(compose(*typed), tmp_path / "whole")
    stopped_at(3, lambda: run_here(compose(*typed), tmp_path / "run"), within="second")
    first = read(tmp_path / "run" / "stages" / "1_first" / "checkpoints" / "last.ckpt")
    frozen = {name for name in first["state_dict"] if ".layer.0." in name}
    assert frozen and not frozen & {
        name for group in first["optimizer_states"][0]["param_groups"] for name in group["params"]
    }
    run_here(compose(*typed, "resume=auto"), tmp_path / "run")
    whole, resumed = (load_file(tmp_path / each / "student" / "model.safetensors") for each in ("whole", "run"))
    assert all(torch.equal(resumed[name], value) for name, value in whole.items())


def test_a_base_that_changed_is_not_resumed(
    typed: list[str], run_here: RunHere, compose: Compose, tmp_path: Path, stopped_at: StoppedAt, source: Path
) -> None:
    stopped_at(5, lambda: run_here(compose(*typed), tmp_path / "run"))
    weights = load_file(source / "model.safetensors")
    save_file({name: value + 1e-3 for name, value in weights.items()}, source / "model.safetensors", {"format": "pt"})
    with pytest.raises(
        UserError, match=r"other weights under the student's adapters .*student\.path, .*Put the model back"
    ):
        run_here(compose(*typed, "resume=auto"), tmp_path / "run")


@pytest.mark.parametrize(
    ("overrides", "words"),
    [
        (["student.path=null", "student.layers=null", "student=bert_mini"],
         r"those of student\.sizes are not: set student\.path"),
        (["student.lora.target_modules=[q_proj]"], r"names q_proj, and the student is a bert: it is no linear layer"),
        (["student.quantise_base=4bit"], r"quantise_base=4bit needs a CUDA GPU: .* this profile's device is cpu"),
        (["stages=quantised"], r"quantise=int8 trains the ranges of all weights, and student\.lora freezes them"),
        (["student.lora.rank=-1"], r"student\.lora\.rank=-1 must be a whole number"),
    ],
)  # fmt: skip
def test_preflight_refuses(
    overrides: list[str], words: str, typed: list[str], compose: Compose, tmp_path: Path
) -> None:
    with pytest.raises(UserError, match=words):
        checked(compose(*typed, *overrides), tmp_path / "run")
