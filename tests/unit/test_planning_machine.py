"""Machines to plan for: figures of a profile are checked, and those of this machine are found."""

import pytest
import torch

from mangakd.core.errors import UserError
from mangakd.planning import this_machine
from mangakd.planning.job import Machine

FIGURES = {"memory_gb": 80, "tflops": {"fp32": 20.0}, "bandwidth_gb_s": 2000, "mfu": [0.25, 0.5]}


def test_a_machine_of_figures():
    found = Machine.of("gpu", FIGURES, devices=2, strategy="ddp")
    assert found.mfu == (0.25, 0.5) and found.devices == 2
    assert found.peak("bf16-mixed") == found.peak("32-true") == 20e12


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"memory": 80}, r"hardware\.machine\.memory is unknown; did you mean memory_gb"),
        ({"devices": 2}, r"hardware\.machine\.devices is unknown"),
        ({"memory_gb": None}, r"hardware=gpu lacks figures for a plan: hardware\.machine\.memory_gb"),
        ({"memory_gb": "80GB"}, r"memory_gb must be a number above 0; found 80GB"),
        ({"mfu": 0.4}, r"mfu must be \[…, …\] above 0; found 0\.4"),
        ({"tflops": 312}, r"tflops must be \{fp32"),
        ({"tflops": {"fp32": 20, "fp8": 600}}, r"tflops must be \{fp32"),
        ({"usd_per_hour": -1}, r"usd_per_hour must be a number from 0 on"),
    ],
)
def test_figures_that_are_wrong(change, words):
    with pytest.raises(UserError, match=words):
        Machine.of("gpu", FIGURES | change)


PROFILES = {"a100": FIGURES, "a100_x4_fsdp": FIGURES, "a10g_x2_ddp": {**FIGURES, "memory_gb": 24}}


def test_this_cpu():
    one, two = (this_machine.figures("cpu", processes, {}) for processes in (1, 2))
    assert one["tflops"]["fp32"] == pytest.approx(0.096 * torch.get_num_threads())
    assert one["memory_gb"] == pytest.approx(2 * two["memory_gb"], abs=0.2)
    assert Machine.of("auto", one, accelerator="cpu").memory_gb > 0


@pytest.mark.parametrize(
    ("name", "profile"), [("NVIDIA A100-SXM4-40GB", "a100"), ("NVIDIA A10G", "a10g_x2_ddp"), ("NVIDIA A10", None)]
)
def test_this_gpu_is_known_by_its_name_and_its_memory_is_its_own(name, profile, monkeypatch):
    class Properties:
        total_memory = 42_000_000_000

    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda: name)
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda _: Properties)
    if profile is not None:
        assert this_machine.figures("cuda", 1, PROFILES) == PROFILES[profile] | {"memory_gb": 42}
        return
    with pytest.raises(UserError, match=r"NVIDIA A10 is not known.* hardware=a100, .*hardware\.machine='\{memory_gb"):
        this_machine.figures("cuda", 1, PROFILES)
