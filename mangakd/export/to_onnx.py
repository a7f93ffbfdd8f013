"""ONNX variants: fp32 from the traced program, and INT8 and INT4 made of that file.

Dynamic INT8 quantises weights now and activations at run time, over the whole batch; static INT8 fixes the ranges of activations
on training text, which is faster where the ranges are tame and worse where they are not. Weights are signed and scaled per
output channel, with their whole range: per tensor with reduce_range cost 1.8 points of accuracy where this costs 0.1.
MatMulNBits keeps weights in 8 or 4 bits with a scale for each block of a column, and scales activations by blocks of a row, so
that no text of a batch has a part in another's answer.
Source: ONNX Runtime, https://onnxruntime.ai/docs/performance/model-optimizations/quantization.html
"""

import shutil
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from mangakd.export.graph import Batches, Graph, quiet_logs

MODEL, WEIGHTS = "model.onnx", "model.onnx_data"  # as optimum names them
AXES = ("batch", "sequence")
BLOCK = 32  # with blocks of 128, kernels for one row and for many differ by more than rounding


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


def int8_weights(graph: Graph, calibration: Batches, scratch: Path, folder: Path) -> None:
    """MatMulNBits has 8 bits for matrices alone; the embedding tables become INT8 as in `int8`."""
    from onnxruntime.quantization import QuantType, quantize_dynamic

    with quiet_logs("root"):
        quantize_dynamic(
            _base(graph, scratch), folder / MODEL, op_types_to_quantize=["Gather"], weight_type=QuantType.QInt8
        )
    _quantise_blocks(folder / MODEL, folder, 8, ("MatMul",))


def int4_weights(graph: Graph, calibration: Batches, scratch: Path, folder: Path) -> None:
    _quantise_blocks(_base(graph, scratch), folder, 4, ("MatMul", "Gather"))


def _quantise_blocks(file: Path, folder: Path, bits: int, operators: tuple[str, ...]) -> None:
    """`file` with the weights of `operators` in blocks of BLOCK, into `folder`.

    accuracy_level 4 computes in INT8. As operators, not as QuantizeLinear and DequantizeLinear: that form loses accuracy_level.
    """
    import onnx
    from onnxruntime.quantization.matmul_nbits_quantizer import DefaultWeightOnlyQuantConfig, MatMulNBitsQuantizer

    # Axis 1 of an embedding table is a token's vector.
    config = DefaultWeightOnlyQuantConfig(
        BLOCK, accuracy_level=4, bits=bits, op_types_to_quantize=operators, quant_axes=(("MatMul", 0), ("Gather", 1))
    )
    with quiet_logs("root", "onnxruntime.quantization.matmul_nbits_quantizer"), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # a row of zeros, such as [PAD]'s, divides 0 by 0; it stays zeros
        quantiser = MatMulNBitsQuantizer(onnx.load(file), algo_config=config)
        quantiser.process()
    onnx.save(quantiser.model.model, folder / MODEL)
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
