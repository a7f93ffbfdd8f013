"""benchmarks/gpu.py without a GPU: toy sizes run end to end, kernels are counted as the models' where they are theirs, and a
GPU is known by its name."""

import contextlib
import io
import json
import sys
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest
import tiny
import torch
from conftest import REPO
from hydra.utils import instantiate
from omegaconf import DictConfig, OmegaConf
from torch._inductor import config as inductor

from mangakd.planning.job import Machine

sys.path.insert(0, str(REPO / "benchmarks"))
import gpu
from gpu_pair import Clock, Pair, Schedule

CPU = torch.device("cpu")
# Scalar code: trying out which vector units there are takes as long as compiling.
QUICK = {"compile_threads": 1, "cpp.vec_isa_ok": True, "cpp.simdlen": 1}


@pytest.fixture(scope="module")
def found(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    folder, printed = tmp_path_factory.mktemp("gpu"), io.StringIO()
    typed = ["gpu.py", "--device", "cpu", "--tiny", "--json", str(folder / "found.json")]
    with pytest.MonkeyPatch.context() as patch, inductor.patch(QUICK), contextlib.redirect_stdout(printed):
        patch.setattr(sys, "argv", typed)
        patch.setenv("TORCHINDUCTOR_CACHE_DIR", str(folder / "inductor"))
        patch.setitem(gpu.TINY["teacher"], "n_layers", 1)  # compiling it is most of the time
        torch.compiler.reset()
        gpu.main()
    torch.compiler.reset()
    assert "| live |" in printed.getvalue() and "| toy |" in printed.getvalue()
    return json.loads((folder / "found.json").read_text())


def test_the_intent_pair_is_measured_and_planned(found: dict[str, Any]) -> None:
    rows = found["intent"]["rows"]
    kinds = [(row["teacher"], row["compiled"]) for row in rows]
    assert kinds == [("live", False), ("live", True), ("stored", False), ("stored", True)]
    for row in rows:
        assert 0 < row["outside"] < 1 and 0 < row["mfu"] < 1 and row["models_ms"] > 0
        assert row["samples_per_second"] == pytest.approx(1000 * found["intent"]["spread"]["batch"] / row["step_ms"])
        assert row["samples_per_second_planned"][0] < row["samples_per_second_planned"][1]
        assert min(row["windows_ms"]) <= row["step_ms"] <= max(row["windows_ms"])
        assert row["peak_bytes"] > 0 and row["peak_bytes_planned"] > 0
    assert rows[0]["peak_bytes_planned"] > rows[2]["peak_bytes_planned"]


def test_the_plan_of_an_h100_holds_for_what_was_measured_on_one(compose: Callable[..., DictConfig]) -> None:
    measured = json.loads((REPO / "benchmarks/results/gpu_nvidia_h100_80gb_hbm3.json").read_text())
    hardware = compose("hardware=h100").hardware
    machine = Machine.of("H100", OmegaConf.to_container(hardware.machine), accelerator="gpu")
    pair = Pair(
        gpu.sizes("intent", "student"), gpu.sizes("intent", "teacher"), gpu.SCHEDULE, instantiate(hardware), CPU
    )
    language = gpu.Language("Llama 3 8B", gpu.sizes("response", "student"), 8, 512, 3, 5, 4, CPU)
    for row in measured["intent"]["rows"]:
        worst, best = pair.plan(row["teacher"], machine).samples_per_second
        assert worst < row["samples_per_second"] < best, row["teacher"]
    spoken = measured["language_model"]
    worst, best = language.plan(machine, spoken["micro_batch"]).samples_per_second
    assert worst < spoken["tokens_per_second"] / language.length < best


def test_the_language_model_is_measured_and_planned(found: dict[str, Any]) -> None:
    row = found["language_model"]
    assert row["tokens_per_second"] == pytest.approx(1000 * row["batch"] * row["length"] / row["step_ms"])
    # Rank 16 × (in + out) of 7 matrices in 2 layers: 32→32 twice, 32→16 twice, 32↔64 thrice.
    assert row["trained"] == 16 * 2 * (2 * 64 + 2 * 48 + 3 * 96)
    assert row["peak_bytes"] > 0 and row["peak_bytes_planned"] > 0 and 0 < row["mfu"] < 1


def test_kernels_of_losses_and_optimizer_are_not_the_models() -> None:
    clock = Clock(Schedule(0, 1, 1, 1), torch.device("cpu"))
    student, tokens = tiny.encoder(1), torch.ones(2, 5, dtype=torch.long)
    with clock.watching():
        clock.tick()
        clock.tick()
        logits = student({"input_ids": tokens, "attention_mask": tokens}).logits
        logits.cosh().sum().backward()
        torch.optim.SGD(student.parameters(), lr=0.1).step()
        clock.tick()
    counted = [event.name.removeprefix("autograd::engine::evaluate_function: ") for event in clock.of_models()]
    assert {"aten::layer_norm", "NativeLayerNormBackward0", "AddmmBackward0"} <= set(counted)
    assert not {"aten::cosh", "CoshBackward0", "aten::sum", "SumBackward0"} & set(counted)
    assert not any("Optimizer" in name for name in counted)
    assert counted.count("NativeLayerNormBackward0") == counted.count("aten::layer_norm") == 5  # 1 + 2 in each layer


@pytest.mark.parametrize(("name", "peak"), [("NVIDIA H100 80GB HBM3", 989e12), ("NVIDIA A100-SXM4-80GB", 312e12)])
def test_a_gpu_is_known_by_its_name(monkeypatch: pytest.MonkeyPatch, name: str, peak: float) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda: name)
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda _: SimpleNamespace(total_memory=84.9e9))
    machine, hardware = gpu.gpu(None)
    assert (machine.name, machine.memory_gb, machine.peak("bf16-mixed")) == (name, 84.9, peak)
    assert (hardware.batch_size, hardware.max_length, hardware.precision) == (128, 128, "bf16-mixed")
    assert gpu.gpu("a10g_x2_ddp")[0].peak("bf16-mixed") == 70e12


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a CUDA device")
def test_without_a_gpu_it_says_so(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(sys, "argv", ["gpu.py"])
    with pytest.raises(SystemExit) as stop:
        gpu.main()
    assert stop.value.code == 2
    assert capsys.readouterr().err.count("\n") == 1
