"""Plans of adapters: what learns is counted exactly, and frozen weights by their dtype."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from conftest import checked
from contract.tiny_models import config, encoder
from omegaconf import DictConfig

from mangakd.models.lora import Lora, adapt
from mangakd.planning.job import Job, Machine
from mangakd.planning.memory import states, trainable
from mangakd.planning.sizes import Model
from mangakd.runs.plan import estimated

JOB = Job("intent", 1000, 2, batch=64, length=64, teacher="none")
GPU = Machine("gpu", 80, {"fp32": 20.0, "bf16": 300.0}, 2000, mfu=(0.25, 0.5))


@pytest.mark.parametrize("kind", ["bert", "roberta", "electra", "distilbert", "modernbert", "albert"])
def test_planned_adapters_are_those_that_learn(kind: str) -> None:
    pytest.importorskip("peft", reason="adapters need peft: pip install 'mangakd[lora]'")
    student = encoder(config(kind))
    sized = Model.from_config(student.model.config, kind, "labels", "student")
    adapt(student, Lora(3))
    assert trainable(sized, replace(JOB, lora=3)) == sum(p.numel() for p in student.parameters() if p.requires_grad)


def test_bytes_of_frozen_weights() -> None:
    sized = Model.from_config(encoder(config("bert")).model.config, "bert", "labels", "student")
    learns, count = trainable(sized, replace(JOB, lora=2)), sized.parameters - sized.whole

    def frozen(**changes: Any) -> float:
        return states(sized, replace(JOB, lora=2, **changes))["weights"] - 4 * learns

    assert frozen(precision="32-true") == frozen(precision="16-mixed") == 4 * count
    assert frozen(precision="bf16-mixed") == 2 * count
    assert frozen(four_bit=True) == pytest.approx(2 * (count - sized.matrices) + 0.5159 * sized.matrices, rel=1e-3)
    optimizer = states(sized, replace(JOB, lora=2, four_bit=True))["optimizer"]
    assert optimizer == 8 * learns


def test_a_run_is_planned_with_its_adapters(
    base: list[str], compose: Callable[..., DictConfig], tmp_path: Path
) -> None:
    pytest.importorskip("peft", reason="adapters need peft: pip install 'mangakd[lora]'")
    lora = [
        "student.lora.rank=4",
        "student.lora.target_modules=[query,value]",
        "hardware.activation_checkpointing=true",
    ]
    plan = estimated(checked(compose(*base, *lora), tmp_path / "run"), GPU)
    layers, head = 2, 32 * 32 + 32 + 3 * 32 + 3
    assert plan.trained == 4 * layers * 2 * (32 + 32) + head
    assert plan.job.checkpointing and not plan.job.four_bit
    assert "LoRA of rank 4 in fp32; frozen weights in fp32" in plan.assumptions
