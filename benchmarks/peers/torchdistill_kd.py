"""Distillation with torchdistill's DistillationBox: samples per second of a training step.

    python benchmarks/peers/torchdistill_kd.py --data PATH --padding max|dynamic --steps 40 --warmup 5

Prints one JSON line. The box builds the data loader, hooks, loss and optimiser from a configuration, as its Hugging
Face examples do, and the loop is the one that its documentation asks of the user: `pre_epoch_process`, then
`forward_process` and `post_forward_process` per batch under its `MetricLogger`. The loss is its `KDLoss`.
`--padding max` pads every text to 64 tokens when tokenising, `--padding dynamic` pads to the longest of the batch.

`KDLoss` is alpha * CE + (1 - alpha) * T² * KL, its KL averaged over the batch: its alpha is the weight of the labels,
so it gets 1 - ALPHA here.
"""

from __future__ import annotations

import importlib.util
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from types import ModuleType
from typing import Any

import torch
from common import ALPHA, TEMPERATURE, SeededOrder, Setup, optimizer_kwargs, parse_settings, prepare, report

STUBS: dict[str, tuple[str, ...]] = {
    "torchvision": (),
    "torchvision.datasets": (),
    "torchvision.models": (),
    "torchvision.models.densenet": ("_DenseBlock", "_Transition"),
    "torchvision.models.resnet": ("BasicBlock", "conv1x1"),
}
LOG_FREQ = 50


@contextmanager
def torchvision_or_stub() -> Iterator[None]:
    """Let torchdistill be imported where torchvision is not installed.

    Importing any part of torchdistill imports its image models and its list of image datasets, and these import
    names from torchvision. Distilling a text model calls none of them, so nothing that is timed changes. The stub
    exists only during the import: left in place, it would make transformers believe that torchvision is there.
    """
    if importlib.util.find_spec("torchvision") is not None:
        yield
        return
    for name, members in STUBS.items():
        module = ModuleType(name)
        for member in members:
            setattr(module, member, type(member, (), {}))
        sys.modules[name] = module
        parent, _, child = name.rpartition(".")
        if parent:
            setattr(sys.modules[parent], child, module)
    try:
        yield
    finally:
        for name in STUBS:
            del sys.modules[name]


with torchvision_or_stub():
    import torchdistill
    from torchdistill.core.distillation import DistillationBox, get_distillation_box
    from torchdistill.datasets.registry import register_collate_func
    from torchdistill.misc.log import MetricLogger, SmoothedValue


def loss_config() -> dict[str, Any]:
    kd_loss = {
        "student_module_path": "classifier",
        "student_module_io": "output",
        "teacher_module_path": "classifier",
        "teacher_module_io": "output",
        "temperature": TEMPERATURE,
        "alpha": 1 - ALPHA,
        "reduction": "batchmean",
    }
    terms = {"kd": {"criterion": {"key": "KDLoss", "kwargs": kd_loss}, "weight": 1.0}}
    return {"key": "WeightedSumLoss", "kwargs": {"sub_terms": terms}}


def model_config(requires_grad: bool) -> dict[str, Any]:
    return {
        "forward_proc": "forward_batch_only_as_kwargs",
        "forward_hook": {"input": [], "output": ["classifier"]},
        "requires_grad": requires_grad,
    }


def train_config(setup: Setup) -> dict[str, Any]:
    """What a torchdistill user writes as YAML."""
    register_collate_func(setup.collate, key="padded")
    return {
        "num_epochs": 1,
        "train_data_loader": {
            "dataset_id": "train",
            "requires_supp": False,
            "sampler": {"class_or_func": SeededOrder, "kwargs": {"seed": setup.settings.seed}},
            "collate_fn": "padded",
            "kwargs": {"batch_size": setup.settings.batch_size, "num_workers": 0, "drop_last": True},
        },
        "teacher": model_config(requires_grad=False),
        "student": model_config(requires_grad=True),
        "optimizer": {"key": "AdamW", "kwargs": optimizer_kwargs(setup.settings)},
        "criterion": loss_config(),
    }


def train_one_epoch(box: DistillationBox, most: int) -> int:
    """At most `most` steps of one epoch; returns how many were taken."""
    metrics = MetricLogger(delimiter="  ")
    metrics.add_meter("lr", SmoothedValue(window_size=1, fmt="{value}"))
    for step, batch in enumerate(metrics.log_every(box.train_data_loader, LOG_FREQ), start=1):
        inputs = dict(batch)
        labels = inputs.pop("labels")
        loss = box.forward_process(inputs, targets=labels)
        box.post_forward_process(loss=loss)
        metrics.update(loss=loss.item(), lr=box.optimizer.param_groups[0]["lr"])
        if step == most:
            return step
    return len(box.train_data_loader)


def train(box: DistillationBox, total_steps: int) -> None:
    done, epoch = 0, 0
    while done < total_steps:
        box.pre_epoch_process(epoch=epoch)
        done += train_one_epoch(box, total_steps - done)
        box.post_epoch_process()
        epoch += 1


def main() -> None:
    setup = prepare(parse_settings(__doc__.splitlines()[0]))
    datasets = {"train": setup.train}
    config = train_config(setup)
    box = get_distillation_box(
        setup.teacher, setup.student, datasets, config, torch.device("cpu"), None, distributed=False, lr_factor=1
    )
    setup.clock.watch(box.optimizer)
    train(box, setup.settings.total_steps)
    report(setup, "torchdistill", torchdistill.__version__)


if __name__ == "__main__":
    main()
