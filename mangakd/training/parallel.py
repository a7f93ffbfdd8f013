"""How a fit is spread over processes: the strategy, and what FSDP shards.

FSDP2 (`fully_shard`) averages gradients of the modules it was given, and of no others: a trainable module that was forgotten,
such as a projection, gets different weights on each rank without a word. So what is sharded is listed here, and anything
trainable outside the list is refused.
"""

from typing import Any

import torch
from lightning.pytorch.strategies import DDPStrategy, ModelParallelStrategy, Strategy
from torch import nn
from torch.distributed.device_mesh import DeviceMesh
from torch.distributed.fsdp import MixedPrecisionPolicy, fully_shard
from torch.distributed.tensor import DTensor

from mangakd.core.outputs import AttentionTap, Outputs
from mangakd.losses.base import LossOutput
from mangakd.losses.loss_set import LossSet
from mangakd.models.encoder import Encoder, layer_list
from mangakd.training.hardware import Hardware


def strategy(hardware: Hardware, losses: LossSet) -> Strategy | str:
    """Lightning's strategy for a profile."""
    if hardware.strategy == "fsdp":
        return ModelParallelStrategy(hardware.world, 1, False, process_group_backend=hardware.backend)
    if hardware.strategy == "ddp":
        # Losses that read no logits leave head and upper layers without gradients; else every parameter has one.
        unused = not losses.requires.student.logits
        return DDPStrategy(find_unused_parameters=unused, process_group_backend=hardware.backend)
    return "auto"


def shard(module: nn.Module, student: Encoder, losses: LossSet, mesh: DeviceMesh, precision: str) -> list[str]:
    """Shards the student, layer by layer, and every loss with parameters; returns the names of what is sharded.

    Raises RuntimeError naming the parameters of `module` that would be trained and are not sharded.
    """
    _flatten_outputs()
    policy = MixedPrecisionPolicy(torch.bfloat16, torch.float32) if precision == "bf16-mixed" else None
    shard_encoder(student, mesh, policy)
    names = ["student"]
    for name, loss in losses.callbacks.items():
        if any(parameter.requires_grad for parameter in loss.parameters()):
            fully_shard(loss, mesh=mesh)
            names.append(f"losses.{name}")
    check_sharded(module)
    return names


def shard_encoder(encoder: Encoder, mesh: DeviceMesh, policy: MixedPrecisionPolicy | None = None) -> None:
    """In shards of a layer each, and one for the rest."""
    options: dict[str, Any] = {"mesh": mesh} | ({"mp_policy": policy} if policy else {})
    for layer in layer_list(encoder.model, encoder.spec.layers) or ():
        fully_shard(layer, **options)
    fully_shard(encoder, **options)


def check_sharded(module: nn.Module) -> None:
    outside = [n for n, p in module.named_parameters() if p.requires_grad and not isinstance(p, DTensor)]
    if outside:
        raise RuntimeError(
            f"trainable, but in no shard: {', '.join(outside)}. Each rank would train its own copy. Make them part of the "
            "student or of a loss."
        )


_flat = False


def _flatten_outputs() -> None:
    """Lets FSDP find the tensors in our dataclasses; it puts its backward hooks on those that it can see."""
    global _flat
    if _flat:
        return
    for kind in (Outputs, AttentionTap, LossOutput):
        torch.export.register_dataclass(kind, serialized_type_name=kind.__name__)
    _flat = True
