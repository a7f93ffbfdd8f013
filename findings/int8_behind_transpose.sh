#!/usr/bin/env bash
# onnxruntime 1.31.1, onnx 1.23.2: dynamic quantisation leaves the weight of a MatMul in fp32, without a word, where a Transpose stands
# between the weight and the product, as torch's exporter writes it for large and for shared weights. The same product with the
# weight turned beforehand is quantised. Output seen:
#   weight behind a Transpose: nodes MatMul, Transpose; 4.00 of 4.00 MB of fp32 weights left
#   the same weight, turned:   nodes Cast, DynamicQuantizeLinear, MatMulInteger, Mul; 0.00 of 4.00 MB of fp32 weights left
# For us: mangakd/export/to_onnx.py folds such transposes before it quantises. Exits with 1 where the behaviour has changed.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install -q onnxruntime==1.31.1 onnx==1.23.2
"$folder/venv/bin/python" - "$folder" <<'PY' 2>/dev/null
import sys
from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper
from onnxruntime.quantization import QuantType, quantize_dynamic

SIZE, FP32 = 1024, TensorProto.FLOAT


def quantised(name, turned):
    weight = np.random.default_rng(0).standard_normal((SIZE, SIZE), dtype=np.float32)
    nodes = [helper.make_node("MatMul", ["x", "w"], ["y"])]
    if not turned:
        nodes = [helper.make_node("Transpose", ["raw"], ["w"], perm=[1, 0]), *nodes]
    tensor = numpy_helper.from_array(np.ascontiguousarray(weight.T), "w") if turned else numpy_helper.from_array(weight, "raw")
    ends = [helper.make_tensor_value_info(end, FP32, [None, SIZE]) for end in ("x", "y")]
    graph = helper.make_graph(nodes, "product", ends[:1], ends[1:], [tensor])
    file, small = Path(sys.argv[1], f"{turned}.onnx"), Path(sys.argv[1], f"{turned}_int8.onnx")
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10), file)
    quantize_dynamic(file, small, weight_type=QuantType.QInt8)
    model = onnx.load(small)
    left = sum(4 * int(np.prod(t.dims)) for t in model.graph.initializer if t.data_type == FP32) / 2**20
    kinds = sorted({node.op_type for node in model.graph.node})
    print(f"{name} nodes {', '.join(kinds)}; {left:.2f} of {weight.nbytes / 2**20:.2f} MB of fp32 weights left")
    return kinds


behind, before = quantised("weight behind a Transpose:", False), quantised("the same weight, turned:  ", True)
sys.exit(0 if "MatMulInteger" not in behind and "MatMulInteger" in before else 1)
PY
