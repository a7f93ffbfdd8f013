"""Planning figures of the machine at hand, for profiles that give none (hardware=auto).

A CPU is asked for its threads and its memory. A GPU's peaks cannot be read off it: it is known by its name.
"""

import os
from collections.abc import Mapping
from typing import Any

import torch

from mangakd.core import cpu
from mangakd.core.errors import UserError
from mangakd.planning.job import GB

Figures = Mapping[str, Any]
TFLOPS_A_CORE = 0.096  # fp32, AVX2 at 3 GHz: 16 multiply-adds a cycle
BF16_GAIN = 2  # dot products of two bf16 in the place of one fp32
BANDWIDTH_GB_S = 50  # two channels of DDR4
EXAMPLE = "hardware.machine='{memory_gb: 80, tflops: {fp32: 19.5, bf16: 312}, bandwidth_gb_s: 2039, mfu: [0.25, 0.45]}'"


def figures(kind: str, processes: int, profiles: Mapping[str, Figures]) -> Figures:
    """Of one device; several processes share a CPU. kind: cuda | mps | cpu.

    profiles: figures by profile. The one whose name starts with the GPU's (a100, a10g_x2_ddp) speaks for it. Raises
    UserError for a device that is not here or that no profile knows.
    """
    if kind == "cpu":
        return _cpu(processes)
    name = torch.cuda.get_device_name() if kind == "cuda" and torch.cuda.is_available() else ""
    words = name.lower().replace("-", " ").split()
    for profile, machine in sorted(profiles.items()):
        if profile.split("_")[0] in words:
            # The same name is sold with 40 GB and with 80.
            return {**machine, "memory_gb": round(torch.cuda.get_device_properties(0).total_memory / GB, 1)}
    raise UserError(
        f"the hardware profile has no planning figures (hardware.machine=null), and this machine's {name or kind} is not "
        f"known or not there. Plan for {', '.join(f'hardware={profile}' for profile in sorted(profiles))}, "
        f"or give figures: {EXAMPLE}"
    )


def _cpu(processes: int) -> Figures:
    """Threads are those that torch uses, so OMP_NUM_THREADS counts."""
    fp32 = TFLOPS_A_CORE * torch.get_num_threads() / processes
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / GB
    return {
        "memory_gb": round(memory / processes, 1),
        "tflops": {"fp32": fp32} | ({"bf16": BF16_GAIN * fp32} if cpu.native_bf16() else {}),
        "bandwidth_gb_s": BANDWIDTH_GB_S / processes,
        "mfu": (0.3, 0.9),
        "reserved_gb": 0.5,
    }
