"""A stage with fake quantisers: they are in the forward pass, learn, resume, and what is exported rounds as they do.

Needs nncf and openvino. The first run on a machine compiles NNCF's quantisers, which takes a minute or two.
"""

import copy
import importlib.util
import json
import os
import sys
import time
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import tiny
import torch
from conftest import REPO, checked
from omegaconf import DictConfig
from transformers import AutoModelForSequenceClassification, AutoTokenizer

from mangakd import runtime
from mangakd.core.errors import UserError
from mangakd.core.requires import Need
from mangakd.core.spec import ModelSpec
from mangakd.data.encoded import EncodedSplit, Sides
from mangakd.data.tokenising import tokenise
from mangakd.evaluation.report.export import read
from mangakd.export import quantised as quantisers
from mangakd.export.hf import save_student
from mangakd.export.run import _advice
from mangakd.export.variants import add_trained, make
from mangakd.losses.hard_label import HardLabelLoss
from mangakd.models.encoder import Encoder
from mangakd.models.heads import trained_head
from mangakd.training import quantise
from mangakd.training.optim import parameter_groups
from mangakd.training.quantise import HOOKS, quantising
from mangakd.training.stages import Stage

for package in ("nncf", "openvino", "openvino_tokenizers"):
    pytest.importorskip(package)
sys.path.append(str(REPO / "tests" / "export"))
from exported import CALIBRATION, MAX_LENGTH, TEXTS, student  # noqa: E402

Compose = Callable[..., DictConfig]
RunHere = Callable[[DictConfig, Path], None]
STAGE = Stage("quantised", quantise="int8")


@pytest.mark.parametrize("kind", ["classifier", "distilbert"])
def test_the_variant_answers_as_the_trained_model_with_its_quantisers(kind: str, tmp_path: Path) -> None:
    before = student(tmp_path / "before", kind)
    tokenizer = AutoTokenizer.from_pretrained(before)
    encoder = Encoder(*loaded(before))
    tokens = tokenise(CALIBRATION, tokenizer, MAX_LENGTH, tmp_path / "cache")
    texts = EncodedSplit(Sides(tokens, tokens, 0, 0), {})
    with quantising(STAGE, encoder, texts) as quantised:
        optimizer = torch.optim.AdamW(encoder.parameters(), lr=1e-3)
        for _ in range(3):
            encoder(texts.collate(list(range(16)))["student"]).logits.pow(2).sum().backward()
            optimizer.step()
            optimizer.zero_grad()
    save_student(encoder.model, tokenizer, tmp_path / "student", "", quantised.model)
    (made,) = make(tmp_path / "student", tmp_path / "out", ("openvino_int8_qat",), max_length=MAX_LENGTH)
    said = runtime.load(made, threads=1).outputs(TEXTS, 3)
    wanted, plain = (answers(model, tokenizer) for model in (quantised.model.eval(), encoder.model))
    # A value that lies between two levels may go to the other one where sums are rounded in another order.
    spread = wanted.max() - wanted.min()
    assert np.abs(said - wanted).max() < 0.02 * spread and np.median(np.abs(said - wanted)) < 1e-3 * spread
    assert np.abs(plain - wanted).max() > 10 * np.median(np.abs(said - wanted)), "the quantisers did something"
    assert (made / "openvino_model.bin").stat().st_size < 0.4 * (
        tmp_path / "student" / "model.safetensors"
    ).stat().st_size


def loaded(folder: Path) -> tuple[Any, ModelSpec]:
    model = AutoModelForSequenceClassification.from_pretrained(folder)
    return model, ModelSpec.from_config(model.config, "tiny", trained_head(model.config), "v")


@torch.no_grad()
def answers(model: Any, tokenizer: Any) -> np.ndarray:
    rows = [model(**tokenizer(t, truncation=True, max_length=MAX_LENGTH, return_tensors="pt")).logits for t in TEXTS]
    return torch.cat(rows).numpy()


def test_quantisers_are_in_the_forward_pass_and_all_of_it_learns() -> None:
    encoder, texts = tiny.encoder(1).eval(), tiny.split(40, 1)
    batch = texts.collate(list(range(8)))["student"]
    before = copy.deepcopy(encoder.model.state_dict())
    exact = encoder(batch).logits.detach()
    with quantising(STAGE, encoder, texts) as quantised:
        assert quantised.model is None
        rounded = encoder(batch).logits
        assert 1e-6 < (rounded - exact).abs().max() < 0.1
        rounded.sum().backward()
        ranges = {name: p for name, p in encoder.named_parameters() if HOOKS in name and p.requires_grad}
        assert len(ranges) > 30 and all(p.grad is not None for p in encoder.parameters() if p.requires_grad)
        assert encoder.model.bert.encoder.layer[0].intermediate.dense.weight.grad.abs().max() > 0
        for need in (Need(answer=True, hidden={0, 1, 2}), Need(answer=True, attention={1, 2})):
            tapped = encoder.require(need)(batch)
            torch.testing.assert_close(tapped.logits, rounded, atol=1e-6, rtol=0)
        groups = parameter_groups(
            encoder.require(Need(answer=True)), tiny.bound(encoder, None, hard=HardLabelLoss()), 0.01
        )
        decayed = {id(p) for group in groups if group["weight_decay"] for p in group["params"]}
        assert decayed and not any(id(p) in decayed for p in ranges.values())
        with torch.no_grad():
            encoder.model.classifier.bias += 1
    assert quantised.model is not encoder.model and set(encoder.model.state_dict()) == set(before)
    assert torch.equal(encoder.model.classifier.bias, quantised.model.classifier.bias)
    assert (encoder(batch).logits - exact - 1).abs().max() < 0.05, "plain again, with what was trained"


def test_ranges_come_of_texts_from_end_to_end(monkeypatch: pytest.MonkeyPatch) -> None:
    """Files are often sorted by label, and the first texts are of a few labels."""
    texts, asked = tiny.split(90, 1), []
    given = texts.collate
    monkeypatch.setattr("mangakd.training.quantise.CALIBRATION", 9)
    monkeypatch.setattr(texts, "collate", lambda rows: asked.extend(rows) or given(rows))
    with quantising(STAGE, tiny.encoder(1).eval(), texts):
        assert asked == list(range(0, 90, 10))


@pytest.fixture
def typed(small_run: list[str]) -> list[str]:
    return [*small_run, "stages=quantised", "trainer.max_epochs=1", "checkpoint.every_steps=2"]


def test_a_run_resumes_in_the_stage_and_exports_what_it_trained(
    typed: list[str], run_here: RunHere, compose: Compose, tmp_path: Path, stopped_at: Callable[..., None]
) -> None:
    exports = ["export=[openvino]", "export.openvino.variants=[openvino_fp32]", "export.max_drop=100"]
    run_here(compose(*typed, *exports), tmp_path / "whole")
    stopped_at(3, lambda: run_here(compose(*typed), tmp_path / "killed"), within="quantised")
    run_here(compose(*typed, "resume=auto"), tmp_path / "killed")
    one, other = (
        torch.load(tmp_path / run / "stages" / "2_quantised" / "checkpoints" / "last.ckpt", weights_only=False)
        for run in ("whole", "killed")
    )
    assert any(HOOKS in name for name in one["state_dict"])
    assert all(torch.equal(other["state_dict"][name], value) for name, value in one["state_dict"].items())
    for file in ("model.safetensors", "quantised/model.bin"):
        whole, killed = ((tmp_path / run / "student" / file).read_bytes() for run in ("whole", "killed"))
        assert whole == killed, file
    plain, info = AutoModelForSequenceClassification.from_pretrained(
        tmp_path / "whole" / "student", output_loading_info=True
    )
    assert not info["missing_keys"] and not info["unexpected_keys"] and plain.config.num_labels == 3
    record = read(tmp_path / "whole" / "export")
    assert record is not None and set(record["variants"]) == {"openvino_fp32", "openvino_int8_qat"}
    assert json.loads((tmp_path / "whole" / "metrics.json").read_text())["train/steps"] == 12


@pytest.mark.parametrize(
    ("overrides", "words"),
    [
        (["stages.quantised.quantise=int3"], "stages.quantised.quantise=int3 must be one of null, int8"),
        (["+stages.polish={}"], "stages.quantised.quantise=int8: polish follows the stage"),
        (["hardware.compile=true"], "quantise=int8 does not work with hardware.compile=true"),
        (["hardware=cpu_fsdp"], "quantise=int8 does not work with hardware.strategy=fsdp"),
        (["data.train_limit=9"], "quantise=int8 needs 16 training texts or more"),
    ],
)
def test_what_cannot_be_quantised(
    overrides: list[str], words: str, typed: list[str], compose: Compose, tmp_path: Path
) -> None:
    with pytest.raises(UserError, match=words):
        checked(compose(*typed, *overrides), tmp_path / "run")


def test_a_variant_that_no_stage_trains_is_told_before_training(
    small_run: list[str], compose: Compose, tmp_path: Path
) -> None:
    wanted = ["export=[openvino]", "export.openvino.variants=[openvino_int8_qat]"]
    with pytest.raises(UserError, match="openvino_int8_qat comes of a last stage with quantisers, and there is none"):
        checked(compose(*small_run, *wanted), tmp_path / "run")


def test_a_missing_package_is_told(
    typed: list[str], compose: Compose, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    find = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name == "nncf" else find(name))
    with pytest.raises(UserError, match=r"quantise=int8: nncf not installed.*pip install 'mangakd\[openvino\]'"):
        checked(compose(*typed), tmp_path / "run")


def test_a_student_is_saved_though_its_ir_cannot_be(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def refuse(*args: Any) -> None:
        raise UserError("cannot be traced")

    monkeypatch.setattr(quantisers, "save", refuse)
    model, _ = loaded(student(tmp_path / "before", "classifier"))
    save_student(model, AutoTokenizer.from_pretrained(tmp_path / "before"), tmp_path / "student", "", object())
    assert "cannot be traced" in caplog.text and loaded(tmp_path / "student")
    assert add_trained(["openvino_int8"], tmp_path / "student") == ["openvino_int8"]


def test_the_export_offers_the_stage_where_int8_fails() -> None:
    def judged(**passed: bool) -> Any:
        return [SimpleNamespace(name=name, passed=value) for name, value in passed.items()]

    assert _advice(judged(openvino_fp32=True, openvino_int8=True)) == ""
    offered = _advice(judged(openvino_fp32=True, onnx_int8=True, openvino_int8=False))
    assert "may lose less than openvino_int8: stages=quantised" in offered
    assert _advice(judged(openvino_int8=False, openvino_int8_qat=False)) == "", "it has been through that stage"


def test_a_student_without_quantisers_has_no_such_variant(tmp_path: Path) -> None:
    source = student(tmp_path / "student", "classifier")
    with pytest.raises(UserError, match=r"has no quantised/. Train the student with stages=quantised"):
        make(source, tmp_path / "out", ("openvino_int8_qat",))
    assert not list((tmp_path / "out").glob("openvino*"))


@pytest.mark.parametrize("age", [0.0, 900.0])
def test_a_killed_compilation_blocks_nobody(age: float, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """torch's own wait for the lock file of a build has no end but NNCF's time-out."""
    monkeypatch.setattr(quantise, "LEFTOVER", 0.2)
    leftover = tmp_path / "kernels" / "1.0" / "lock"
    leftover.parent.mkdir(parents=True)
    leftover.touch()
    written = time.time() - age
    os.utime(leftover, (written, written))
    with quantise.alone_in_build(tmp_path):
        assert not leftover.exists() and time.time() - written >= 0.2
