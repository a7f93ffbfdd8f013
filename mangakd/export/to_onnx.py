"""ONNX variants: fp32 from the traced program, and two kinds of INT8 made of that file.

Dynamic INT8 quantises weights now and activations at run time; static INT8 fixes the ranges of activations on training text,
which is faster where the ranges are tame and worse where they are not. Weights are signed and scaled per output channel, with
their whole range: per tensor with reduce_range cost 1.8 points of accuracy where this costs 0.1.
Source: ONNX Runtime, https://onnxruntime.ai/docs/performance/model-optimizations/quantization.html
"""

import shutil
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from mangakd.export.graph import Batches, Graph, quiet_logs

MODEL, WEIGHTS = "model.onnx", "model.bin"
AXES = ("batch", "sequence")


def fp32(graph: Graph, calibration: Batches, scratch: Path, folder: Path) -> None:
    shutil.copy(_base(graph, scratch), folder / MODEL)
    _put_weights_aside(folder)


def int8(graph: Graph, calibration: Batches, scratch: Path, folder: Path) -> None:
    from onnxruntime.quantization import QuantType, quantize_dynamic

    with quiet_logs("root"):
        quantize_dynamic(
            _base(graph, scratch), folder / MODEL, per_channel=True, reduce_range=False, weight_type=QuantType.QInt8
        )
    _put_weights_aside(folder)


def int8_static(graph: Graph, calibration: Batches, scratch: Path, folder: Path) -> None:
    """Only products with weights: attention's products of two activations lose most and gain least."""
    from onnxruntime.quantization import QuantType, quantize_static

    with quiet_logs("root"):
        quantize_static(
            _base(graph, scratch), folder / MODEL, _reader(calibration), per_channel=True, reduce_range=False,
            activation_type=QuantType.QUInt8, weight_type=QuantType.QInt8, op_types_to_quantize=["MatMul", "Gemm", "Gather"],
            extra_options={"MatMulConstBOnly": True},
        )  # fmt: skip
    _put_weights_aside(folder)


def _base(graph: Graph, scratch: Path) -> Path:
    """The fp32 file, made once for all variants."""
    file = scratch / MODEL
    if not file.is_file():
        _export(graph, file)
    return file


def _export(graph: Graph, file: Path) -> None:
    import onnx
    import torch

    with warnings.catch_warnings(), quiet_logs("torch", "onnxscript", "onnx_ir"):
        warnings.simplefilter("ignore")
        made: Any = torch.onnx.export(
            graph.program, (), dynamo=True, input_names=list(graph.inputs), output_names=[graph.output], verbose=False
        )
    _free_name(made.model.graph, graph.output)
    model = made.model_proto
    # Shapes of intermediate values, which the quantisers would compare with their own and refuse.
    model.graph.ClearField("value_info")
    for node in model.graph.node:
        node.ClearField("metadata_props")  # stack traces, with the paths of the machine that exports
    _name_axes(model)
    onnx.checker.check_model(model)
    onnx.save(model, file)


def _put_weights_aside(folder: Path) -> None:
    """Into a file that onnxruntime maps into memory, where it copies weights out of the graph's file, and keeps both."""
    import onnx

    model = onnx.load(folder / MODEL)
    (folder / MODEL).unlink()
    onnx.save(model, folder / MODEL, save_as_external_data=True, location=WEIGHTS, size_threshold=1024)
    (folder / WEIGHTS).chmod((folder / MODEL).stat().st_mode)  # onnx lets nobody else read it


def _free_name(graph: Any, name: str) -> None:
    """torch calls the token embeddings `embedding` too, and names must be unique."""
    for value in (value for node in graph for value in node.outputs):
        if value.name == name and not value.is_graph_output():
            value.name = f"{name}_inside"


def _name_axes(model: Any) -> None:
    """torch calls open sizes s43 and s53, and may give one size two names."""
    for value in model.graph.input:
        for dim, axis in zip(value.type.tensor_type.shape.dim, AXES, strict=True):
            dim.dim_param = axis
    model.graph.output[0].type.tensor_type.shape.dim[0].dim_param = AXES[0]


def _reader(calibration: Batches) -> Any:
    from onnxruntime.quantization import CalibrationDataReader

    class Reader(CalibrationDataReader):
        def __init__(self) -> None:
            self._left: Iterator[dict[str, np.ndarray]] = iter(calibration)

        def get_next(self) -> dict[str, np.ndarray] | None:
            return next(self._left, None)

    return Reader()
