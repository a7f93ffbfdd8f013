"""A sharded language model in one process: the gradient of its head, which runs outside of the model's forward."""

import copy
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from tiny_language import encoder, inputs, logits
from torch import Tensor, distributed
from torch.distributed.device_mesh import DeviceMesh, init_device_mesh

from mangakd.models.encoder import Encoder
from mangakd.training.parallel import _flatten_outputs, shard_encoder


@pytest.fixture
def mesh(tmp_path: Path) -> Iterator[DeviceMesh]:
    distributed.init_process_group("gloo", init_method=f"file://{tmp_path / 'store'}", rank=0, world_size=1)
    yield init_device_mesh("cpu", (1,))
    distributed.destroy_process_group()


def gradients(taught: Encoder) -> dict[str, Tensor]:
    taught.zero_grad()
    logits(taught(inputs())).logsumexp(-1).sum().backward()
    each = {name: p.grad for name, p in taught.named_parameters()}
    return {name: getattr(gradient, "full_tensor", lambda own=gradient: own)() for name, gradient in each.items()}


@pytest.mark.filterwarnings("error:.*returned a view tensor")
@pytest.mark.parametrize("kind", ["llama", "untied", "phi"])
def test_gradients_of_a_sharded_model_and_no_hook_that_stays(kind: str, mesh: DeviceMesh) -> None:
    plain = encoder(kind)
    sharded = copy.deepcopy(plain)
    _flatten_outputs()
    shard_encoder(sharded, mesh)
    for _ in range(2):
        expected, found = gradients(plain), gradients(sharded)
    for name, gradient in expected.items():
        torch.testing.assert_close(found[name], gradient, rtol=0, atol=0, msg=name)
    assert not any(p._backward_hooks for p in (sharded.model.get_output_embeddings().weight, *sharded.parameters()))
