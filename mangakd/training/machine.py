"""Checks whether this machine can run a hardware profile. Imports torch and nothing slower, so the check is fast."""

import importlib.util
import os
import shutil
from collections.abc import Iterator, Mapping

import torch

from mangakd.core import cpu
from mangakd.core.errors import near
from mangakd.training.hardware import Hardware

LEAST_BF16_RATE = 1e-4  # below it weights of 0.05 do not move


def wrong_profile(hardware: Hardware, name: str) -> Iterator[str]:
    """Yield one sentence for each reason why the profile `name` cannot run on this machine or on any machine."""
    lack = missing_devices(hardware, name)
    if lack:
        yield lack
    if (hardware.strategy == "one") != (hardware.world == 1):
        yield (
            f"hardware.strategy={hardware.strategy} with {hardware.devices} devices × {hardware.nodes} nodes: one device has "
            "strategy=one, several have ddp or fsdp."
        )
    if hardware.teacher.placement == "sharded" and hardware.strategy != "fsdp":
        yield "hardware.teacher.placement=sharded spreads the teacher over FSDP's devices: it needs hardware.strategy=fsdp."
    if hardware.precision == "16-mixed" and hardware.kind == "cpu":
        yield "hardware.precision=16-mixed needs a GPU or MPS; a CPU has 32-true and bf16-mixed."
    if hardware.precision.startswith("bf16") and hardware.kind == "mps":
        yield f"hardware.precision={hardware.precision} is not sure to work on MPS: use 32-true or 16-mixed."
    if hardware.compile and hardware.kind == "cpu" and not shutil.which(os.environ.get("CXX", "g++")):
        yield "hardware.compile=true needs a C++ compiler and there is none: install g++, or leave hardware.compile=false."
    if hardware.attention == "flash_attention_2" and not importlib.util.find_spec("flash_attn"):
        yield "hardware.attention=flash_attention_2 needs the package flash-attn: pip install flash-attn, or use sdpa."


def slow_profile(hardware: Hardware) -> str:
    """One sentence if this CPU must emulate the precision; otherwise empty."""
    if hardware.kind != "cpu" or not hardware.precision.startswith("bf16"):
        return ""
    if cpu.native_bf16():
        return ""
    return (
        f"hardware.precision={hardware.precision} is emulated on this CPU, which has no bf16 units, and is about ten times "
        "as slow as fp32: use hardware.precision=32-true."
    )


def lost_steps(hardware: Hardware, rates: Mapping[str, float]) -> Iterator[str]:
    """Yield one sentence for each learning rate whose steps bf16 weights would mostly lose. rates: key → peak learning rate.

    A bf16 number has 8 bits: it changes only by more than 1/512 of its size. A step of AdamW is about the learning rate.
    """
    if hardware.precision != "bf16-true":
        return
    for key, rate in rates.items():
        if rate < LEAST_BF16_RATE:
            yield (
                f"hardware.precision=bf16-true with {key}={rate:g}: weights above {512 * rate:.2g} in size would not move, "
                "as a bf16 number changes only by more than 1/512 of itself. Use hardware.precision=bf16-mixed or 32-true."
            )


def missing_devices(hardware: Hardware, name: str) -> str:
    """One sentence with the devices that the profile needs, the devices of this machine and a profile that fits.

    Empty if this machine has the devices.
    """
    devices = {"cpu": 1, "gpu": torch.cuda.device_count(), "mps": int(torch.backends.mps.is_available())}
    kind, count = hardware.accelerator, hardware.devices
    if kind not in (*devices, "auto"):
        return f"hardware.accelerator={kind} is unknown{near(str(kind), devices)} Known: auto, {', '.join(devices)}."
    if kind not in ("gpu", "mps") or not isinstance(count, int) or devices[kind] >= count:
        return ""
    have = " and ".join(f"{n} {title}" for title, n in (("GPU", devices["gpu"]), ("MPS device", devices["mps"])) if n)
    fits = "hardware=cpu"
    if kind == "gpu" and devices["gpu"]:
        fits = f"hardware.devices={devices['gpu']}" if devices["gpu"] > 1 else "hardware=auto, which takes the one GPU"
    elif devices["gpu"] or devices["mps"]:
        fits = "hardware=auto, which takes the devices of this machine"
    wants = f"{count} {'GPU' if kind == 'gpu' else 'MPS device'}{'s' if count > 1 else ''}"
    return f"hardware={name} needs {wants}; this machine has {have or 'a CPU and no GPU'}. Use {fits}."
