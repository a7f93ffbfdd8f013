"""ONNX variants: fp32 from the traced program; INT8 and INT4 from the fp32 file.

Dynamic INT8 quantises weights during the export and activations at run time, over the whole batch. Static INT8 calibrates the
ranges of activations on training texts; it is faster, and less accurate for activations with outliers. Weights are signed and
scaled per output channel, with their whole range: this costs 0.1 points of accuracy, per-tensor scales with reduce_range 1.8.
MatMulNBits stores weights in 8 or 4 bits with a scale for each block of a column, and scales activations by blocks of a row. So
no text of a batch influences another text's answer.
Source: ONNX Runtime, https://onnxruntime.ai/docs/performance/model-optimizations/quantization.html
"""

import shutil
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from mangakd.export.traced import Batches, Traced, quiet_logs

BLOCK = 32  # with blocks of 128, kernels for one row and for many differ by more than rounding


def file_of(graph: Traced) -> str:
    """model.onnx is optimum's name."""
    return f"{graph.stem}.onnx"


def fp32(graph: Traced, calibration: Batches, scratch: Path, folder: Path) -> None:
    shutil.copy(_base(graph, scratch), folder / file_of(graph))
    _put_weights_aside(folder / file_of(graph))


def int8(graph: Traced, calibration: Batches, scratch: Path, folder: Path) -> None:
    from onnxruntime.quantization import QuantType, quantize_dynamic

    with quiet_logs("root"):
        quantize_dynamic(
            _base(graph, scratch),
            folder / file_of(graph),
            per_channel=True,
            reduce_range=False,
            weight_type=QuantType.QInt8,
        )
    _put_weights_aside(folder / file_of(graph))


def int8_static(graph: Traced, calibration: Batches, scratch: Path, folder: Path) -> None:
    """Quantises only products with weights: attention's products of two activations lose most accuracy and gain least speed."""
    from onnxruntime.quantization import QuantType, quantize_static

    with quiet_logs("root"):
        quantize_static(
            _base(graph, scratch), folder / file_of(graph), _reader(calibration), per_channel=True, reduce_range=False,
            activation_type=QuantType.QUInt8, weight_type=QuantType.QInt8, op_types_to_quantize=["MatMul", "Gemm", "Gather"],
            extra_options={"MatMulConstBOnly": True},
        )  # fmt: skip
    _put_weights_aside(folder / file_of(graph))


def int8_weights(graph: Traced, calibration: Batches, scratch: Path, folder: Path) -> None:
    """MatMulNBits supports 8 bits for matrices only; the embedding tables become INT8 as in `int8`."""
    from onnxruntime.quantization import QuantType, quantize_dynamic

    with quiet_logs("root"):
        quantize_dynamic(
            _base(graph, scratch), folder / file_of(graph), op_types_to_quantize=["Gather"], weight_type=QuantType.QInt8
        )
    file = folder / file_of(graph)
    _quantise_blocks(file, file, 8, ("MatMul",))


def int4_weights(graph: Traced, calibration: Batches, scratch: Path, folder: Path) -> None:
    _quantise_blocks(_base(graph, scratch), folder / file_of(graph), 4, ("MatMul", "Gather"))


def _quantise_blocks(file: Path, to: Path, bits: int, operators: tuple[str, ...]) -> None:
    """Quantise the weights of `operators` in `file` in blocks of BLOCK, and write the model to the file `to`.

    accuracy_level 4 computes in INT8. The format is MatMulNBits operators, because QuantizeLinear and DequantizeLinear lose
    accuracy_level.
    """
    import onnx
    from onnxruntime.quantization.matmul_nbits_quantizer import DefaultWeightOnlyQuantConfig, MatMulNBitsQuantizer

    # Axis 1 of an embedding table is a token's vector.
    config = DefaultWeightOnlyQuantConfig(
        BLOCK, accuracy_level=4, bits=bits, op_types_to_quantize=operators, quant_axes=(("MatMul", 0), ("Gather", 1))
    )
    with quiet_logs("root", "onnxruntime.quantization.matmul_nbits_quantizer"), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # a row of zeros, such as [PAD]'s, divides 0 by 0 and stays zero
        quantiser = MatMulNBitsQuantizer(onnx.load(file), algo_config=config)
        quantiser.process()
    onnx.save(quantiser.model.model, to)
    _put_weights_aside(to)


def _base(graph: Traced, scratch: Path) -> Path:
    """The fp32 file, exported once for all variants."""
    file = scratch / file_of(graph)
    if not file.is_file():
        _export(graph, file)
    return file


def _export(graph: Traced, file: Path) -> None:
    import onnx
    import torch

    with warnings.catch_warnings(), quiet_logs("torch", "onnxscript", "onnx_ir"):
        warnings.simplefilter("ignore")
        program: Any = torch.onnx.export(
            graph.program,
            (),
            dynamo=True,
            input_names=list(graph.inputs),
            output_names=list(graph.outputs),
            verbose=False,
        )
    for name in graph.outputs:
        _free_name(program.model.graph, name)
    model = program.model_proto
    # Remove the shapes of intermediate values: the quantisers infer other shapes and then raise.
    model.graph.ClearField("value_info")
    for node in model.graph.node:
        node.ClearField("metadata_props")  # stack traces, which contain paths of this machine
    _name_axes(model, graph)
    onnx.checker.check_model(model)
    onnx.save(model, file)


def _put_weights_aside(file: Path) -> None:
    """Move weights to a separate file, which onnxruntime memory-maps. It copies weights of the graph's file and keeps both."""
    import onnx

    model = onnx.load(file)
    file.unlink()
    weights = file.with_suffix(".onnx_data")
    onnx.save(model, file, save_as_external_data=True, location=weights.name, size_threshold=1024)
    weights.chmod(file.stat().st_mode)  # onnx makes the file readable for its owner only


def _free_name(graph: Any, name: str) -> None:
    """Rename an inner value called `name`: torch may call token embeddings `embedding`, too, and names must be unique."""
    for value in (value for node in graph for value in node.outputs):
        if value.name == name and not value.is_graph_output():
            value.name = f"{name}_inside"


def _name_axes(model: Any, graph: Traced) -> None:
    """Name the dynamic axes. torch calls them s43 and s53, and may give one axis two names."""
    for value in (*model.graph.input, *model.graph.output):
        for dim, axis in zip(value.type.tensor_type.shape.dim, graph.axes[value.name], strict=False):
            if axis is not None:
                dim.dim_param = axis


def _reader(calibration: Batches) -> Any:
    from onnxruntime.quantization import CalibrationDataReader

    class Reader(CalibrationDataReader):
        def __init__(self) -> None:
            self._batches: Iterator[dict[str, np.ndarray]] = iter(calibration)

        def get_next(self) -> dict[str, np.ndarray] | None:
            return next(self._batches, None)

    return Reader()
