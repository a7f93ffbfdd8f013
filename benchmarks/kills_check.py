"""The checks of kills.py: does a killed run equal the uninterrupted run bit for bit, and did it use each row once an epoch?"""

import json
import os
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file

Rows = dict[int, dict[int, list[int]]]  # step → rank → keys of its rows
PARTS = ("state_dict", "optimizer_states", "lr_schedulers", "loops", "epoch", "global_step")
TIMED = ("run/seconds", "train/samples_per_second")  # of metrics.json


def differences(reference: Path, run: Path) -> list[str]:
    """Names of the parts in which two run folders differ: last.ckpt, best.ckpt's weights, the student, the scores."""
    last, best = (
        [torch.load(folder / "checkpoints" / name, weights_only=False) for folder in (reference, run)]
        for name in ("last.ckpt", "best.ckpt")
    )
    students = [load_file(folder / "student" / "model.safetensors") for folder in (reference, run)]
    metrics = [json.loads((folder / "metrics.json").read_text()) for folder in (reference, run)]
    names = [name for part in PARTS for name in _unequal(part, last[0][part], last[1][part])]
    names += _unequal("best", best[0]["state_dict"], best[1]["state_dict"])
    names += _unequal("student", *students)
    return names + _unequal("metrics", *({k: v for k, v in m.items() if k not in TIMED} for m in metrics))


def _unequal(name: str, left: Any, right: Any) -> list[str]:
    """Names of the leaves that differ, tensors by their bits."""
    if isinstance(left, torch.Tensor) and isinstance(right, torch.Tensor):
        same = left.dtype == right.dtype and left.shape == right.shape and bool((_bits(left) == _bits(right)).all())
        return [] if same else [name]
    if isinstance(left, Mapping) and isinstance(right, Mapping) and left.keys() == right.keys():
        return [leaf for key in left for leaf in _unequal(f"{name}.{key}", left[key], right[key])]
    if isinstance(left, list | tuple) and isinstance(right, list | tuple) and len(left) == len(right):
        return [f for i, pair in enumerate(zip(left, right, strict=True)) for f in _unequal(f"{name}.{i}", *pair)]
    return [] if left == right else [name]


def _bits(tensor: torch.Tensor) -> torch.Tensor:
    """The bytes of a tensor: as bytes −0 differs from 0, and a NaN equals itself."""
    return tensor.contiguous().view(-1).view(torch.uint8)


def processes(folder: Path) -> dict[int, int]:
    """rank → process id, of one start."""
    names = (file.stem.split("-") for file in folder.glob("*.txt"))
    return {int(rank): int(process) for rank, process in names}


def read_progress(folder: Path) -> list[float]:
    """The progress of each process of one start."""
    progress = []
    for file in folder.glob("*.txt"):
        with file.open("rb") as lines:  # read the end only, because this runs many times a second
            lines.seek(max(lines.seek(0, os.SEEK_END) - 2000, 0))
            whole = lines.read().split(b"\n")[:-1]
        progress += [float(whole[-1].split()[0])] if whole else []
    return progress


def read_rows(folder: Path, steps: int) -> Rows:
    """The rows of each step of one start. steps: of the whole run. Ignores a line that a kill has cut off."""
    rows: Rows = {}
    for file in folder.glob("*.txt"):
        for line in file.read_text().split("\n")[:-1]:
            progress, *keys = line.split()
            step = rows.setdefault(round(float(progress) * steps), {})
            step.setdefault(int(file.stem.split("-")[0]), []).extend(map(int, keys))
    return rows


def last_rows(starts: Sequence[Rows]) -> Rows:
    """The rows of the last execution of each step. The weights of earlier executions were lost in a kill."""
    return {step: rows for start in starts for step, rows in start.items()}


def wrong_rows(reference: Rows, run: Rows, epochs: int) -> Iterator[str]:
    """Yield one sentence for each fault in the rows of a run."""
    if sorted(run) != list(range(len(reference))):
        yield f"steps {sorted(set(reference) ^ set(run))[:5]} were not done by both runs"
        return
    other = [step for step in reference if reference[step] != run[step]]
    if other:
        yield f"steps {other[:5]} had other rows than in the uninterrupted run"
    every = {key for ranks in reference.values() for keys in ranks.values() for key in keys}
    length = len(reference) // epochs
    for epoch in range(epochs):
        steps = range(epoch * length, (epoch + 1) * length)
        count = Counter(key for step in steps for keys in run[step].values() for key in keys)
        twice, missed = [key for key, times in count.items() if times > 1], every - count.keys()
        if twice or missed:
            yield f"epoch {epoch}: {len(twice)} rows twice, {len(missed)} not at all"
