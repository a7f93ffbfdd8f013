"""Properties of this machine's CPU."""

import os
import platform
from pathlib import Path

import torch

INFO = Path("/proc/cpuinfo")
INT8_UNITS = {"avx512_vnni", "avx_vnni", "amx_int8", "asimddp"}  # x86 and Arm
BF16_UNITS = {"avx512_bf16", "amx_bf16"}  # x86; not measured on Arm


def name() -> str:
    return _values("model name") or platform.processor() or platform.machine()


def cores() -> int:
    """The number of cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def int8_units() -> bool | None:
    """Whether the CPU has INT8 units; None if unknown.

    Without INT8 units three instructions replace one, and INT8 is hardly faster than fp32 on long texts.
    """
    flags = _flags()
    return not INT8_UNITS.isdisjoint(flags) if flags else None


def native_bf16() -> bool:
    """Whether torch multiplies bf16 in units of the CPU; False if unknown.

    ATEN_CPU_CAPABILITY=avx2 simulates a CPU without bf16 units.
    """
    return not BF16_UNITS.isdisjoint(_flags()) and torch.backends.cpu.get_cpu_capability() not in ("DEFAULT", "AVX2")


def _flags() -> list[str]:
    return (_values("flags") or _values("Features")).split()


def _values(key: str) -> str:
    """The value of a key for the first core; all cores are equal."""
    lines = INFO.read_text(encoding="utf-8").splitlines() if INFO.is_file() else []
    return next((line.partition(":")[2].strip() for line in lines if line.partition(":")[0].strip() == key), "")
