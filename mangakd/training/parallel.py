"""The strategy of a fit over several processes, and the modules that FSDP shards.

FSDP2 (`fully_shard`) averages the gradients of sharded modules only. Any other trainable module, such as a projection, would
silently get different weights on each rank. So `shard` lists its modules and raises for a trainable parameter outside them.
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
from mangakd.models.encoder import Encoder
from mangakd.training.hardware import Hardware


def strategy(hardware: Hardware, losses: LossSet) -> Strategy | str:
    """Lightning's strategy for a profile."""
    if hardware.strategy == "fsdp":
        return ModelParallelStrategy(hardware.world, 1, False, process_group_backend=hardware.backend)
    if hardware.strategy == "ddp":
        # Losses that read no logits leave the head and upper layers without gradients. Otherwise every parameter has a gradient.
        unused = not losses.requires.student.answer
        return DDPStrategy(find_unused_parameters=unused, process_group_backend=hardware.backend)
    return "auto"


def shard(module: nn.Module, student: Encoder, losses: LossSet, mesh: DeviceMesh, precision: str) -> list[str]:
    """Shard the student, layer by layer, and every loss with parameters; returns the names of the sharded modules.

    Raises RuntimeError that names trainable parameters of `module` outside the shards.
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
    """Shard each layer, and all other parameters together."""
    options: dict[str, Any] = {"mesh": mesh} | ({"mp_policy": policy} if policy else {})
    for layer in encoder.layers or ():
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
    """Register our dataclasses, so that FSDP finds the tensors that need its backward hooks."""
    global _flat
    if _flat:
        return
    for kind in (Outputs, AttentionTap, LossOutput):
        torch.export.register_dataclass(kind, serialized_type_name=kind.__name__)
    _flat = True
