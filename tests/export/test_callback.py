"""The export callbacks in a Lightning Trainer of one's own, and what they refuse. Needs onnx."""

from pathlib import Path
from typing import Any

import lightning as L
import numpy as np
import pytest
import torch
from exported import CALIBRATION, MAX_LENGTH, TEXTS, student, torch_says
from transformers import AutoModelForSequenceClassification, AutoTokenizer

from mangakd import runtime
from mangakd.core.errors import UserError
from mangakd.export.run import Options
from mangakd.training.callbacks.export import ONNXExport, OpenVINOExport, _model

for package in ("onnx", "onnxscript", "onnxruntime"):
    pytest.importorskip(package)


class Own(L.LightningModule):
    """What a person who knows nothing of mangakd trains."""

    def __init__(self, folder: Path, models: int = 1) -> None:
        super().__init__()
        made = [AutoModelForSequenceClassification.from_pretrained(folder) for _ in range(models)]
        self.models = torch.nn.ModuleList(made)

    def training_step(self, batch: Any, index: int) -> torch.Tensor:
        return self.models[0](input_ids=torch.ones(2, 5, dtype=torch.long), labels=torch.tensor([0, 1])).loss

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.AdamW(self.parameters(), lr=1e-3)


def fit(module: L.LightningModule, root: Path, *callbacks: L.Callback) -> None:
    trainer = L.Trainer(
        max_steps=2, callbacks=list(callbacks), default_root_dir=root, accelerator="cpu", logger=False,
        enable_checkpointing=False, enable_progress_bar=False, enable_model_summary=False,
    )  # fmt: skip
    trainer.fit(module, torch.utils.data.DataLoader([0, 0]))


def test_a_trainer_of_one_s_own_leaves_a_student_that_serves(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    before = student(tmp_path / "before", "classifier")
    tokenizer = AutoTokenizer.from_pretrained(before)
    callback = ONNXExport(["onnx_fp32"], tokenizer, CALIBRATION, Options(max_length=MAX_LENGTH))
    fit(Own(before), tmp_path / "run", callback)
    root = tmp_path / "run"
    best = runtime.load(root / "export" / "best", threads=1)
    trained = torch_says(root / "student", "classifier", TEXTS)
    np.testing.assert_allclose(best.outputs(TEXTS), trained, atol=1e-4)
    assert np.abs(trained - torch_says(before, "classifier", TEXTS)).max() > 1e-4, "the weights after the fit"
    said = capsys.readouterr().out
    assert "onnx_fp32 ships." in said and "PyTorch fp32" in said and "export 1/6: making onnx_fp32" in said


def test_what_a_module_cannot_give(tmp_path: Path) -> None:
    before = student(tmp_path / "before", "classifier")
    tokenizer = AutoTokenizer.from_pretrained(before)
    with pytest.raises(UserError, match=r"Own holds 2 Hugging Face models"):
        fit(Own(before, 2), tmp_path / "two", ONNXExport(["onnx_fp32"], tokenizer=tokenizer, texts=CALIBRATION))
    with pytest.raises(UserError, match=r"ONNXExport in your own Trainer needs tokenizer"):
        fit(Own(before), tmp_path / "none", ONNXExport(["onnx_fp32"]))
    assert not list((tmp_path / "two").glob("*")) and not list((tmp_path / "none").glob("*"))


def test_of_a_module_with_a_student_the_student_is_exported(tmp_path: Path) -> None:
    module = Own(student(tmp_path / "before", "classifier"), 2)
    module.student = torch.nn.ModuleList([module.models[1]])  # wrapped, as mangakd's own is
    assert _model(module) is module.models[1]


def test_an_unknown_variant_is_told_before_training() -> None:
    with pytest.raises(UserError, match=r"no variant 'onnx_fp23'; did you mean onnx_fp32"):
        ONNXExport(["onnx_fp23"])


def test_both_callbacks_make_what_their_backend_serves() -> None:
    pytest.importorskip("openvino")
    assert all(name.startswith("onnx_") for name in ONNXExport().variants)
    assert all(name.startswith("openvino_") for name in OpenVINOExport().variants)
