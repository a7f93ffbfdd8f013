"""A served answer depends on its text alone: asked alone and under concurrent load, over HTTP, it is the same."""

import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest

try:
    import fastapi  # noqa: F401
    import httpx
    import uvicorn  # noqa: F401
except ImportError as missing:
    pytest.skip(f"the service and its client: pip install fastapi uvicorn httpx ({missing})", allow_module_level=True)

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "benchmarks"))

from made_variant import copied, variant, write_manifest
from serving_client import served

from mangakd.runtime import load

TEXTS = [" ".join(["order", "refund!", "I", "shipping?"][: 1 + i % 4] * (1 + i % 7)) + f" {i}" for i in range(48)]
ROUNDING = 1e-6  # of a probability: fp32 sums in another order


def fp32(_: Path) -> Path:
    return variant()


def openvino_fp32(_: Path) -> Path:
    return variant(backend="openvino")


def weights_int8(scratch: Path) -> Path:
    """MatMulNBits with 8 bits, computed in INT8 with a scale for each row's blocks."""
    pytest.importorskip("onnx", reason="writes the model: pip install onnx")
    import onnx
    from onnxruntime.quantization.matmul_nbits_quantizer import DefaultWeightOnlyQuantConfig, MatMulNBitsQuantizer

    folder = copied(variant(), scratch)
    recipe = DefaultWeightOnlyQuantConfig(block_size=16, is_symmetric=True, accuracy_level=4, bits=8)
    quantizer = MatMulNBitsQuantizer(onnx.load(folder / "model.onnx"), algo_config=recipe)
    quantizer.process()
    assert "MatMulNBits" in {node.op_type for node in quantizer.model.model.graph.node}
    onnx.save(quantizer.model.model, folder / "model.onnx")
    write_manifest(folder)
    return folder


def static_int8(scratch: Path) -> Path:
    """Activations in ranges that are fixed beforehand."""
    pytest.importorskip("onnx", reason="writes the model: pip install onnx")
    from onnxruntime.quantization import CalibrationDataReader, QuantType, quantize_static

    class Reader(CalibrationDataReader):
        def __init__(self) -> None:
            model = load(variant(), 1)
            self._arrays = (model._tokeniser.pad(model._tokeniser([text]), model.manifest.inputs) for text in TEXTS)

        def get_next(self) -> dict[str, np.ndarray] | None:
            return next(self._arrays, None)

    folder = copied(variant(), scratch)
    file = folder / "model.onnx"
    quantize_static(file, file, Reader(), op_types_to_quantize=["MatMul"], weight_type=QuantType.QInt8)
    write_manifest(folder)
    return folder


@pytest.mark.parametrize("make", [fp32, openvino_fp32, weights_int8, static_int8], ids=lambda make: make.__name__)
def test_an_answer_depends_on_its_text_alone(make: Callable[[Path], Path], tmp_path: Path) -> None:
    with (
        served(make(tmp_path), tmp_path / "log", "--linger", "0") as process,
        httpx.Client(base_url=process.url, timeout=60) as client,
        ThreadPoolExecutor(12) as pool,
    ):

        def ask(text: str) -> dict[str, float]:
            return client.post("/predict", json={"texts": [text]}).raise_for_status().json()["predictions"][0]

        alone = [ask(text) for text in TEXTS]
        for _ in range(3):
            for own, given in zip(alone, pool.map(ask, TEXTS), strict=True):
                assert given["label"] == own["label"]
                assert given["probabilities"] == pytest.approx(own["probabilities"], abs=ROUNDING)
        together = client.post("/predict", json={"texts": TEXTS}).json()["predictions"]
        for own, given in zip(alone, together, strict=True):
            assert given["probabilities"] == pytest.approx(own["probabilities"], abs=ROUNDING)
        page = client.get("/metrics").text.splitlines()
    sizes = {float(line.split()[1]) for line in page if line.startswith("mangakd_batch_texts_bucket")}
    assert len(sizes) > 2  # batches of one, of 48, and some in between
