"""Compares the memory estimates of `mangakd.planning` with measured memory.

    python benchmarks/memory.py

For each student and each stage (weights; with gradients; with AdamW's states; a whole step) a separate child process
builds the student, runs that part of a training step, and reports the peak of its resident memory minus the memory
before the student. The first three stages use a batch of two tokens, so that activations take no memory; the last stage
uses a batch of 16 texts of 128 tokens. With a CUDA device the same stages are also measured there, by the allocator's
peak (`--device cuda` measures the device only).

Limit: weights, gradients and optimizer within 20 %. Activations have no limit, because their number comes from the code
of two architectures.
"""

from __future__ import annotations

import argparse
import gc
import json
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
import transformers
from results_file import machine as this_machine
from results_file import table, write

from mangakd.planning.job import Job, Machine
from mangakd.planning.memory import activations, logits, states
from mangakd.planning.sizes import Model

STUDENTS: dict[str, dict[str, Any]] = {
    "tinybert_4l_312d": {
        "model_type": "bert", "num_hidden_layers": 4, "hidden_size": 312, "num_attention_heads": 12, "intermediate_size": 1200,
    },
    "distilbert": {"model_type": "distilbert"},
    "bert_base": {"model_type": "bert"},
}  # fmt: skip
LABELS = 10  # as the corpus has
STAGES = ("weights", "weights + gradients", "weights + gradients + optimizer", "a step of 16 × 128 tokens")
LIMIT = 0.20
MB = 1e6
Shape = tuple[int, int]


def estimate(student: str, stage: str, device: str) -> float:
    """The estimate in bytes, without driver and libraries."""
    job = Job("memory", 1, 1, *_shape(stage), precision="32-true")
    model = Model.from_config(_config(student), student, "labels", f"student {student}")
    bytes_ = states(model, job)
    parts = [bytes_["weights"], bytes_["gradients"], bytes_["optimizer"]]
    if stage == STAGES[-1]:
        here = Machine("here", 1, {"fp32": 1.0}, 1, (0.1, 1.0), accelerator="gpu" if device == "cuda" else "cpu")
        alone = replace(job, soft_targets=False)
        return sum(parts) + activations(model, here, alone) + logits(model, alone)
    return sum(parts[: STAGES.index(stage) + 1])


def _config(student: str) -> Any:
    return transformers.AutoConfig.for_model(**STUDENTS[student], num_labels=LABELS)


def _shape(stage: str) -> Shape:
    return (16, 128) if stage == STAGES[-1] else (1, 2)


def child(student: str, stage: str, device: str) -> float:
    """Bytes at the peak. Runs in a fresh process."""
    torch.set_num_threads(1)
    count = STAGES.index(stage)
    _train(transformers.AutoConfig.for_model("bert", **_WARM), 3, (1, 2), device)  # libraries and their buffers
    entries = _config(student)
    gc.collect()
    before = _reset(device)
    _train(entries, count, _shape(stage), device)
    return _peak(device) - before


_WARM = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 32, "vocab_size": 50}


def _train(entries: Any, stages: int, shape: Shape, device: str) -> None:
    """Build; from 1 on backward; from 2 on the optimizer's step; 3 is a second step, beside the states of the first."""
    network = transformers.AutoModelForSequenceClassification.from_config(entries).to(device).train()
    if stages == 0:
        return
    tokens = torch.randint(0, entries.vocab_size, shape, device=device)
    labels = torch.zeros(shape[0], dtype=torch.long, device=device)
    optimizer = torch.optim.AdamW(network.parameters(), lr=1e-5, fused=True)
    for _ in range(2 if stages == 3 else 1):
        optimizer.zero_grad()
        network(input_ids=tokens, attention_mask=torch.ones_like(tokens), labels=labels).loss.backward()
        if stages >= 2:
            optimizer.step()


def _reset(device: str) -> float:
    """Reset the peak; returns the bytes in use."""
    if device == "cuda":
        torch.cuda.synchronize()
        torch.cuda.reset_peak_memory_stats()
        return torch.cuda.memory_allocated()
    Path("/proc/self/clear_refs").write_text("5", encoding="ascii")
    return _status("VmRSS")


def _peak(device: str) -> float:
    return torch.cuda.max_memory_allocated() if device == "cuda" else _status("VmHWM")


def _status(field: str) -> float:
    lines = Path("/proc/self/status").read_text(encoding="ascii").splitlines()
    return next(1024.0 * int(line.split()[1]) for line in lines if line.startswith(f"{field}:"))


def measure(student: str, stage: str, device: str) -> float:
    command = [sys.executable, __file__, "--child", student, stage, "--device", device]
    quiet = {"OMP_NUM_THREADS": "1", "OMP_WAIT_POLICY": "PASSIVE", "HF_HUB_OFFLINE": "1"}
    process = subprocess.run(command, env={**os.environ, **quiet}, capture_output=True, text=True)
    if process.returncode != 0:
        raise SystemExit(f"{student}, {stage} on {device} failed:\n{process.stderr[-3000:]}")
    return json.loads(process.stdout.strip().splitlines()[-1])


def lines(device: str) -> list[dict[str, Any]]:
    rows = []
    for student in STUDENTS:
        for stage in STAGES:
            want, have = estimate(student, stage, device), measure(student, stage, device)
            rows.append(
                {"student": student, "stage": stage, "estimate": want, "measured": have, "error": want / have - 1}
            )
            print(f"{device}: {student}, {stage}: {want / MB:.0f} MB foretold, {have / MB:.0f} MB measured", flush=True)
    return rows


def body(measurements: list[dict[str, Any]]) -> str:
    header = ("student", "what", "estimate, MB", "measured peak, MB", "estimate / measured − 1")
    rows = [
        [
            line["student"],
            line["stage"],
            f"{line['estimate'] / MB:,.0f}",
            f"{line['measured'] / MB:,.0f}",
            f"{line['error']:+.1%}",
        ]
        for line in measurements
    ]
    return table(header, rows)


def report(device: str) -> bool:
    """Measure, print and write; returns whether the first three stages are within the limit."""
    rows = lines(device)
    where = torch.cuda.get_device_name() if device == "cuda" else this_machine()["cpu"]
    worst = max(abs(line["error"]) for line in rows if line["stage"] != STAGES[-1])
    kind = "the allocator" if device == "cuda" else "resident memory"
    note = f"""Planning estimates, and peaks of {kind} measured on {where}: fp32, fused AdamW, a process for each row,
less what was in use before the student. Weights, gradients and optimizer: largest error {worst:.1%}, wanted at most
{LIMIT:.0%}. The last row of a student adds activations and logits, and has no bound."""
    content = {
        "versions": {"torch": torch.__version__, "transformers": transformers.__version__},
        "device": where,
        "lines": rows,
    }
    text = body(rows)
    print(text)
    print(write(f"memory_{device}", "Memory: planning estimate beside measured peaks", content, f"{text}\n\n{note}"))
    return worst <= LIMIT


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--device", choices=("cpu", "cuda"), help="left out: cpu, and cuda where there is one")
    parser.add_argument("--child", nargs=2, metavar=("STUDENT", "STAGE"), help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.child:
        print(json.dumps(child(*options.child, options.device)))
        return
    devices = [options.device] if options.device else ["cpu", *(["cuda"] if torch.cuda.is_available() else [])]
    within = [report(device) for device in devices]
    if not all(within):
        raise SystemExit(f"an estimate of weights, gradients and optimizer is off by more than {LIMIT:.0%}")


if __name__ == "__main__":
    main()
