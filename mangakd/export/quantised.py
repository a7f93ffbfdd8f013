"""Saves a student trained with fake quantisers as INT8 IR: each quantiser becomes OpenVINO's FakeQuantize with its trained range.

nncf.strip imports torchao, and torch.export cannot trace its native modules. So each quantiser becomes a custom operator, which
torch.export traces and OpenVINO converts to FakeQuantize. IR and trained model then round alike, and OpenVINO stores the weights
in INT8. Source: FakeQuantize-1 of OpenVINO's operation sets,
https://docs.openvino.ai/2026/documentation/openvino-ir-format.html
"""

import copy
import warnings
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from mangakd.export.graph import Answer, Graph, inputs_of
from mangakd.export.to_openvino import IN_STUDENT, TRAINED, set_names
from mangakd.models.heads import trained_head

LENGTH = 16  # largest number of tokens in the traced example; the length is dynamic


@torch.library.custom_op("mangakd::fake_quantize", mutates_args=())
def fake_quantize(x: Tensor, low: Tensor, high: Tensor, levels: int) -> Tensor:
    """Clip x to [low, high] and round to the nearest of `levels` equally spaced values, which include both ends.

    low, high: shapes broadcast to x; low < high.
    """
    step = (high - low) / (levels - 1)
    return torch.round((torch.clamp(x, low, high) - low) / step) * step + low


@fake_quantize.register_fake
def _(x: Tensor, low: Tensor, high: Tensor, levels: int) -> Tensor:
    return torch.empty_like(x)


class Range(nn.Module):
    """A trained quantiser with a constant range. forward(x) → x rounded to its levels."""

    def __init__(self, quantiser: Any) -> None:
        super().__init__()
        with torch.no_grad():
            low, high = quantiser.get_input_low_input_high()
        self.levels = int(quantiser.levels)
        self.register_buffer("low", low.detach().clone())
        self.register_buffer("high", high.detach().clone())

    def forward(self, x: Tensor) -> Tensor:
        return fake_quantize(x, self.low, self.high, self.levels)


def freeze_ranges(model: Any) -> Any:
    """Copy a model with the quantisers of mangakd.training.quantise; the copy's ranges are constant."""
    from nncf.torch.function_hook.wrapper import get_hook_storage
    from nncf.torch.quantization.layers import BaseQuantizer

    model = copy.deepcopy(model).cpu().eval().requires_grad_(False)
    hooks = get_hook_storage(model)
    for name, quantiser in list(hooks.named_hooks()):
        if isinstance(quantiser, BaseQuantizer):
            hooks.set_submodule(name, Range(quantiser))
    return model


def save(model: Any, tokenizer: Any, student: Path) -> None:
    """Write the IR of a trained model with quantisers to the folder `student`; the variant openvino_int8_qat reads the IR.

    Raises UserError if torch.export cannot trace the model.
    """
    import openvino as ov

    module, head = Answer(freeze_ranges(model), None), trained_head(model.config)
    graph = Graph(student, module, inputs_of(model, tokenizer), head, tokenizer, LENGTH)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        ir = ov.convert_model(graph.program, extension=[_extension()])
    (student / IN_STUDENT).mkdir(exist_ok=True)
    ov.save_model(set_names(graph, ir), student / IN_STUDENT / TRAINED, compress_to_fp16=True)


def _extension() -> Any:
    from openvino import opset13
    from openvino.frontend.pytorch import ConversionExtension

    def convert(context: Any) -> Any:
        x, low, high = (context.get_input(i) for i in range(3))
        return opset13.fake_quantize(x, low, high, low, high, context.get_values_from_const_input(3)).outputs()

    return ConversionExtension("mangakd.fake_quantize.default", convert)
