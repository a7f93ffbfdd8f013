"""An exported encoder–decoder for the tests, made by hand: it writes its source again, token by token, up to the source's end.

The encoder passes the ids of the source on as keys; the decoder takes the one at the place that the length of its past says. So a
wrong order, a wrong past or padding that is read would change the text. As made_variant.py, it needs neither torch nor fixtures.
"""

import shutil
from dataclasses import asdict
from pathlib import Path
from typing import Any

from made_variant import _ROOT, WORDS, save_tokenizer, write_manifest

from mangakd.core.spec import Head
from mangakd.runtime.decoding import Decoding

CLS, SEP, NEW = 101, 102, 12  # of MiniLM's tokenizer; new tokens
HEAD = Head("tokens", WORDS, source=True)
DECODING = Decoding("decoder.onnx", 1, 1, 1, CLS, (SEP,), WORDS, NEW)


def copier(**changes: Any) -> Path:
    """The folder, made once where nothing is changed. changes: of its manifest."""
    folder = Path(_ROOT.name) / "copier"
    if not folder.exists():
        folder.mkdir()
        save_tokenizer(folder / "tokenizer.json")
        _save(folder)
    content: dict[str, Any] = {"format": 3, "model": "encoder.onnx", "output": "tokens", "head": asdict(HEAD)}
    content |= {"decoding": DECODING.entry(), "turns": {"separator": " | ", "template": "{turns}"}}
    if not changes:
        write_manifest(folder, **content)
        return folder
    other = Path(shutil.copytree(folder, Path(_ROOT.name) / f"copier_{len(list(Path(_ROOT.name).iterdir()))}"))
    write_manifest(other, **{**content, **changes})
    return other


def _save(folder: Path) -> None:
    import numpy as np
    import pytest

    pytest.importorskip("onnx", reason="writes the model: pip install onnx")
    pytest.importorskip("onnxruntime", reason="runs the model: pip install onnxruntime")
    from onnx import TensorProto, checker, helper, numpy_helper, save

    node, whole, real = helper.make_node, TensorProto.INT64, TensorProto.FLOAT

    def port(name: str, kind: int, *shape: Any) -> Any:
        return helper.make_tensor_value_info(name, kind, list(shape))

    def constant(name: str, value: Any, kind: Any = np.int64) -> Any:
        return numpy_helper.from_array(np.array(value, dtype=kind), name)

    def write(name: str, nodes: list[Any], inputs: list[Any], outputs: list[Any], constants: list[Any]) -> None:
        graph = helper.make_graph(nodes, name, inputs, outputs, constants)
        model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
        checker.check_model(model)
        save(model, folder / f"{name}.onnx")

    source = [port("input_ids", whole, "batch", "sequence"), port("attention_mask", whole, "batch", "sequence")]
    keys = [port(name, real, "batch", 1, "sequence", 1) for name in DECODING.crossed]
    write(
        "encoder",
        [
            node("Cast", ["input_ids"], ["ids"], to=real), node("Unsqueeze", ["ids", "axes"], ["cross_key_0"]),
            node("Identity", ["cross_key_0"], ["cross_value_0"]),
        ],
        source, keys, [constant("axes", [1, 3])],
    )  # fmt: skip
    past = [port(name, real, "batch", 1, "past", 1) for name in DECODING.past]
    present = [port(name, real, "batch", 1, "longer", 1) for name in DECODING.outputs[1:]]
    write(
        "decoder",
        [
            node("Shape", ["past_key_0"], ["sizes"]), node("Gather", ["sizes", "two"], ["place"]),
            node("Shape", ["cross_key_0"], ["source_sizes"]), node("Gather", ["source_sizes", "two"], ["length"]),
            node("Sub", ["length", "one"], ["last"]), node("Min", ["place", "last"], ["at"]),
            node("Gather", ["cross_key_0", "at"], ["token"], axis=2), node("Sub", ["words", "token"], ["apart"]),
            node("Mul", ["apart", "apart"], ["square"]), node("Neg", ["square"], ["near"]),
            node("Squeeze", ["near", "axis"], ["logits"]),
            node("Cast", ["input_ids"], ["read"], to=real), node("Unsqueeze", ["read", "axes"], ["new"]),
            node("Concat", ["past_key_0", "new"], ["present_key_0"], axis=2),
            node("Concat", ["past_value_0", "new"], ["present_value_0"], axis=2),
        ],
        [port("input_ids", whole, "batch", 1), source[1], *keys, *past], [port("logits", real, "batch", WORDS), *present],
        [
            constant("two", 2), constant("one", 1), constant("axis", [1]), constant("axes", [2, 3]),
            constant("words", np.arange(WORDS), np.float32),
        ],
    )  # fmt: skip
