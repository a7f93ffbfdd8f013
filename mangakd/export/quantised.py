"""A student trained with fake quantisers, as INT8 IR: each quantiser becomes OpenVINO's FakeQuantize with the range it learnt.

nncf.strip would do the first half, but imports torchao, and its native modules cannot be traced by torch.export. An operator
of our own can, and FakeQuantize is what it is converted to, so that IR and trained model round alike; OpenVINO then stores
the weights in INT8. Source: FakeQuantize-1 of OpenVINO's operation sets, https://docs.openvino.ai/2026/documentation/openvino-ir-format.html
"""

import copy
import warnings
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from mangakd.export.graph import Answer, Graph, inputs_of
from mangakd.export.to_openvino import IN_STUDENT, TRAINED, named
from mangakd.models.heads import trained_head

LENGTH = 16  # tokens that the graph is traced with at most; it is open


@torch.library.custom_op("mangakd::fake_quantize", mutates_args=())
def fake_quantize(x: Tensor, low: Tensor, high: Tensor, levels: int) -> Tensor:
    """x clipped to [low, high] and rounded to the nearest of `levels` equally spaced values, the ends among them.

    low, high: of a shape that broadcasts to x, low < high.
    """
    step = (high - low) / (levels - 1)
    return torch.round((torch.clamp(x, low, high) - low) / step) * step + low


@fake_quantize.register_fake
def _(x: Tensor, low: Tensor, high: Tensor, levels: int) -> Tensor:
    return torch.empty_like(x)


class Range(nn.Module):
    """What a trained quantiser does, with its range as it is now. forward(x) → x rounded to its levels."""

    def __init__(self, quantiser: Any) -> None:
        super().__init__()
        with torch.no_grad():
            low, high = quantiser.get_input_low_input_high()
        self.levels = int(quantiser.levels)
        self.register_buffer("low", low.detach().clone())
        self.register_buffer("high", high.detach().clone())

    def forward(self, x: Tensor) -> Tensor:
        return fake_quantize(x, self.low, self.high, self.levels)


def fixed(model: Any) -> Any:
    """A copy of a model that mangakd.training.quantise has put quantisers in, whose ranges learn no more."""
    from nncf.torch.function_hook.wrapper import get_hook_storage
    from nncf.torch.quantization.layers import BaseQuantizer

    model = copy.deepcopy(model).cpu().eval().requires_grad_(False)
    hooks = get_hook_storage(model)
    for name, quantiser in list(hooks.named_hooks()):
        if isinstance(quantiser, BaseQuantizer):
            hooks.set_submodule(name, Range(quantiser))
    return model


def save(model: Any, tokenizer: Any, student: Path) -> None:
    """Write the IR of a trained model with quantisers into the folder `student`, where the variant openvino_int8_qat finds it.

    Raises UserError where torch.export cannot trace the model.
    """
    import openvino as ov

    graph = Graph(
        student, Answer(fixed(model), None), inputs_of(model, tokenizer), trained_head(model.config), tokenizer, LENGTH
    )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        converted = ov.convert_model(graph.program, extension=[_extension()])
    (student / IN_STUDENT).mkdir(exist_ok=True)
    ov.save_model(named(graph, converted), student / IN_STUDENT / TRAINED, compress_to_fp16=True)


def _extension() -> Any:
    from openvino import opset13
    from openvino.frontend.pytorch import ConversionExtension

    def convert(context: Any) -> Any:
        x, low, high = (context.get_input(i) for i in range(3))
        return opset13.fake_quantize(x, low, high, low, high, context.get_values_from_const_input(3)).outputs()

    return ConversionExtension("mangakd.fake_quantize.default", convert)
