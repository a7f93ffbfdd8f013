"""What one GPU does, beside what the plan says: the intent pair through `fit`, and a step of an 8B language model.

    python benchmarks/gpu.py                        # needs a CUDA device; writes results/gpu_<device>.{md,json}
    python benchmarks/gpu.py --device cpu --tiny    # the same code on toy sizes, in a minute; writes nothing

What is counted is said in gpu_pair.py and gpu_language.py. Memory is the peak of PyTorch's allocator, so the plan's share for
driver and libraries is left out of the figure beside it. MFU counts the plan's arithmetic (student forward and backward,
teacher forward; what checkpointing computes again counts) against the vendor's dense bf16 peak.
"""

from __future__ import annotations

import argparse
import json
import re
import sys
import tempfile
from dataclasses import replace
from itertools import product
from pathlib import Path
from typing import Any

import lightning
import torch
import transformers
from gpu_language import Language
from gpu_pair import TEACHERS, Pair, Schedule
from hydra import compose, initialize_config_dir
from hydra.utils import instantiate
from omegaconf import OmegaConf
from results_file import table, write

from mangakd.cli.app import CONF, register_resolvers
from mangakd.cli.plan import profiles
from mangakd.core.errors import UserError
from mangakd.planning import this_machine
from mangakd.planning.advice import RANK
from mangakd.planning.job import GB, Machine
from mangakd.planning.table import between, figure
from mangakd.training.hardware import Hardware

PROFILE = "a100"  # batch and precision of a large GPU; h100 has the same
SCHEDULE, TINY_SCHEDULE = Schedule(30, 7, 50, 10), Schedule(2, 2, 2, 2)
TINY = {
    "student": {"model_type": "bert", "num_hidden_layers": 1, "hidden_size": 16, "num_attention_heads": 2,
                "intermediate_size": 32, "vocab_size": 50, "num_labels": 3},
    "teacher": {"model_type": "distilbert", "n_layers": 2, "dim": 32, "n_heads": 2, "hidden_dim": 64, "vocab_size": 50,
                "num_labels": 3},
    "language": {"model_type": "llama", "vocab_size": 100, "hidden_size": 32, "num_hidden_layers": 2,
                 "num_attention_heads": 4, "num_key_value_heads": 2, "intermediate_size": 64},
}  # fmt: skip


def sizes(workload: str, side: str) -> dict[str, Any]:
    """Of conf/workload, which the plan reads, too."""
    return OmegaConf.to_container(OmegaConf.load(CONF / "workload" / f"{workload}.yaml")[side].sizes)  # type: ignore[return-value]


def gpu(profile_name: str | None) -> tuple[Machine, Hardware]:
    """This GPU's planning figures, and the profile that the pair is trained with.

    profile_name: the profile with the figures, for a GPU whose name no profile has. Raises UserError without figures.
    """
    register_resolvers()
    with initialize_config_dir(str(CONF), version_base="1.3"):
        configs = {name: compose("train", [f"hardware={name}"]).hardware for name in profiles()}
        hardware = instantiate(configs[PROFILE])
    machines = {name: OmegaConf.to_container(profile.machine) for name, profile in configs.items() if profile.machine}
    if profile_name is not None:
        memory = round(torch.cuda.get_device_properties(0).total_memory / GB, 1)
        figures = {**machines[profile_name], "memory_gb": memory}
    else:
        figures = this_machine.figures("cuda", 1, machines)
    return Machine.of(torch.cuda.get_device_name(), figures, accelerator="gpu", devices=1, strategy="one"), hardware


def parts(options: argparse.Namespace) -> tuple[Machine, Pair, Language]:
    device = torch.device(options.device)
    if device.type == "cuda":
        machine, hardware = gpu(options.figures)
    else:
        machine = Machine.of("this CPU", this_machine.figures("cpu", 1, {}), accelerator="cpu")
        hardware = Hardware(accelerator="cpu", precision="bf16-mixed", batch_size=4, max_length=16)
    if options.tiny:
        pair = Pair(TINY["student"], TINY["teacher"], TINY_SCHEDULE, hardware, device)
        return machine, pair, Language("toy", TINY["language"], 4, 16, 1, 2, 1, device)
    pair = Pair(sizes("intent", "student"), sizes("intent", "teacher"), SCHEDULE, hardware, device)
    return machine, pair, Language("Llama 3 8B", sizes("response", "student"), 8, 512, 3, 5, 4, device)


def measure(options: argparse.Namespace) -> dict[str, Any]:
    machine, pair, language = parts(options)
    rows = []
    for kind, compiled in product(TEACHERS, (False, True)):
        run = replace(pair, hardware=replace(pair.hardware, compile=compiled))
        with tempfile.TemporaryDirectory() as folder:
            rows.append(run.measure(kind, machine, Path(folder)) | {"compiled": compiled})
        speed = rows[-1]["samples_per_second"]
        print(f"intent pair, teacher {kind}, {compiled=}: {speed:,.0f} samples/s", flush=True)
    spread = {
        "batch": pair.hardware.batch_size,
        "length": pair.hardware.max_length,
        "precision": pair.hardware.precision,
    }
    spoken = language.measure(machine) | {"batch": language.batch, "length": language.length}
    versions = {
        "torch": torch.__version__,
        "transformers": transformers.__version__,
        "lightning": lightning.__version__,
    }
    return {
        "device": machine.name,
        "versions": versions | ({"CUDA": torch.version.cuda} if torch.version.cuda else {}),
        "peak_tflops_bf16": machine.peak("bf16-mixed") / 1e12,
        "intent": {"spread": spread, "rows": rows},
        "language_model": spoken,
    }


def body(result: dict[str, Any]) -> str:
    header = ("teacher", "student compiled", "samples/s", "plan", "step, ms", "MFU", "peak, GB", "plan, GB",
              "outside the models' kernels")  # fmt: skip
    rows = [
        [row["teacher"], "yes" if row["compiled"] else "no", *_speed(row, "samples_per_second"),
         f"{row['step_ms']:.1f} ({_windows(row)})", *_shares(row), f"{row['outside']:.0%}"]
        for row in result["intent"]["rows"]
    ]  # fmt: skip
    spoken = result["language_model"]
    columns = ("model", "tokens/s", "plan", "step, ms", "MFU", "peak, GB", "plan, GB", "micro-batch")
    line = [spoken["model"], *_speed(spoken, "tokens_per_second"), f"{spoken['step_ms']:.0f} ({_windows(spoken)})",
            *_shares(spoken), str(spoken["micro_batch"])]  # fmt: skip
    pair = result["intent"]["spread"]
    return f"""Intent pair: DistilBERT teaches TinyBERT 4L-312, batches of {pair["batch"]} texts of {pair["length"]} tokens,
{pair["precision"]}.

{table(header, rows)}

{spoken["model"]}, {spoken["parameters"] / 1e9:.2f}B weights in bf16, LoRA of rank {RANK} ({spoken["trained"] / 1e6:.0f}M
trained, AdamW), activation checkpointing; steps of {spoken["batch"]} texts of {spoken["length"]} tokens.

{table(columns, [line])}

Measured on {result["device"]}, weights and tokens random. Plan: planning estimates, from bad to good, made before anything ran.
Milliseconds are medians of windows of steps, in brackets the shortest and the longest window. MFU is against
{result["peak_tflops_bf16"]:g} TFLOP/s. GB are of PyTorch's allocator; the plan's are without driver and libraries."""


def _speed(row: dict[str, Any], name: str) -> list[str]:
    return [f"{row[name]:,.0f}", between(row[f"{name}_planned"], figure)]


def _windows(row: dict[str, Any]) -> str:
    return f"{min(row['windows_ms']):.1f}–{max(row['windows_ms']):.1f}"


def _shares(row: dict[str, Any]) -> list[str]:
    return [f"{row['mfu']:.0%}", f"{row['peak_bytes'] / GB:.2f}", f"{row['peak_bytes_planned'] / GB:.2f}"]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--device", choices=("cuda", "cpu"), default="cuda")
    parser.add_argument("--tiny", action="store_true", help="toy sizes, to try the code; writes no result")
    parser.add_argument(
        "--figures", metavar="PROFILE", help="planning figures for a GPU that no hardware profile knows"
    )
    parser.add_argument("--json", type=Path, help="write the numbers here, and no result")
    options = parser.parse_args()
    if options.device == "cpu" and not options.tiny:
        parser.error("an 8B model is for a GPU; on a CPU give --tiny")
    if options.device == "cuda" and not torch.cuda.is_available():
        print("gpu.py needs a CUDA device and finds none; --device cpu --tiny tries its code.", file=sys.stderr)
        raise SystemExit(2)
    torch.set_num_threads(1)
    try:
        result = measure(options)
    except UserError as error:
        raise SystemExit(f"error: {error} For this benchmark: --figures PROFILE.") from error
    text = body(result)
    print(text)
    if options.json:
        options.json.write_text(json.dumps(result, indent=2))
    elif not options.tiny:
        name = re.sub(r"[^a-z0-9]+", "_", result["device"].lower()).strip("_")
        print(write(f"gpu_{name}", f"One GPU: {result['device']}", result, text))


if __name__ == "__main__":
    main()
