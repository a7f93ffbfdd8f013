"""What is read of /proc/cpuinfo, on x86, on Arm, and where there is none."""

from pathlib import Path

import pytest
import torch

from mangakd.core import cpu
from mangakd.planning import this_machine
from mangakd.training.hardware import Hardware

CASES: dict[str, tuple[str | None, bool | None]] = {
    "x86 with VNNI": ("model name\t: Xeon\nflags\t\t: fpu avx2 avx512_vnni\n", True),
    "x86 without": ("model name\t: EPYC\nflags\t\t: fpu avx2\nvmx flags\t: avx512_vnni\n", False),
    "Arm with dot products": ("Features\t: fp asimd asimddp\n", True),
    "a system without it": (None, None),
}


@pytest.mark.parametrize("what", CASES)
def test_int8_units_are_told_from_flags(what: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    text, expected = CASES[what]
    monkeypatch.setattr(cpu, "INFO", tmp_path / "cpuinfo")
    if text is not None:
        cpu.INFO.write_text(text)
    assert cpu.int8_units() is expected


def test_the_first_cores_name_and_where_none_is_told_the_platforms(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cpu, "INFO", tmp_path / "cpuinfo")
    monkeypatch.setattr(cpu.platform, "processor", lambda: "arm")
    assert cpu.name() == "arm"
    cpu.INFO.write_text("model name\t: One: Two\nmodel name\t: Other\n")
    assert cpu.name() == "One: Two"


@pytest.mark.parametrize(
    ("flags", "capability", "expected"),
    [
        ("avx2 avx512f avx512_bf16", "AVX512", True),
        ("avx2 avx512f amx_bf16 amx_tile", "AVX512", True),
        ("avx2 avx512f avx512bw avx512dq", "AVX512", False),  # oneDNN takes bf16 there and emulates it
        ("avx2", "AVX2", False),
        ("avx2 avx512f avx512_bf16", "AVX2", False),  # ATEN_CPU_CAPABILITY=avx2
    ],
)
def test_auto_computes_in_bf16_where_the_cpu_has_units_for_it(
    flags: str, capability: str, expected: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cpu, "INFO", tmp_path / "cpuinfo")
    cpu.INFO.write_text(f"flags\t: fpu {flags}\n")
    monkeypatch.setattr(torch.backends.cpu, "get_cpu_capability", lambda: capability)
    assert cpu.native_bf16() is expected
    assert Hardware(accelerator="cpu", precision="auto").precision == ("bf16-mixed" if expected else "32-true")
    assert Hardware(accelerator="mps", precision="auto").precision == "32-true"
    assert Hardware(accelerator="cpu", precision="32-true").precision == "32-true"
    peaks = this_machine.figures("cpu", 1, {})["tflops"]
    assert peaks.get("bf16") == (2 * peaks["fp32"] if expected else None)
