#!/usr/bin/env bash
# OpenVINO 2026.4.1, CPU: DYNAMIC_QUANTIZATION_GROUP_SIZE, the size of the groups in which activations of compressed weights are
# quantised, changes nothing unless it is a multiple of 16 that divides the weights' group. The compiled model reports the size in any
# case. So weights in groups of 104 (the largest up to 128 for rows of 312) are never multiplied in integers. Output seen, the largest
# difference to size 0, and the size that is reported:
#   weights in groups of  96: 8 → 0 (8), 16 → 0.022 (16), 32 → 0.026 (32), 64 → 0 (64), 96 → 0.027 (96), 104 → 0 (104)
#   weights in groups of 104: 8 → 0 (8), 16 → 0 (16), 32 → 0 (32), 64 → 0 (64), 96 → 0 (96), 104 → 0 (104)
# For us: mangakd/export/language/weight_groups.py chooses both sizes. Exits with 1 where the behaviour has changed.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install -q openvino==2026.4.1
"$folder/venv/bin/python" - <<'PY'
import sys

import numpy as np
import openvino as ov
from openvino import opset13 as op

KEY, ROWS, SIZES = "DYNAMIC_QUANTIZATION_GROUP_SIZE", 64, (8, 16, 32, 64, 96, 104)


def model(length, group):
    """x (1, T, length) times INT4 weights with a scale for each group."""
    rng = np.random.default_rng(0)
    x = op.parameter([1, -1, length], np.float32)
    weights = op.constant(rng.integers(-8, 8, (ROWS, length // group, group)).astype(np.int8), dtype=ov.Type.i4)
    scales = op.constant(rng.uniform(0.01, 0.02, (ROWS, length // group, 1)).astype(np.float32))
    matrix = op.reshape(op.multiply(op.convert(weights, "f32"), scales), [ROWS, length], False)
    return ov.Model([op.result(op.matmul(x, matrix, False, True))], [x], "product")


def answer(length, group, size):
    x = np.random.default_rng(1).standard_normal((1, 8, length)).astype(np.float32)
    compiled = ov.Core().compile_model(model(length, group), "CPU", {"INFERENCE_PRECISION_HINT": "f32", KEY: size})
    return compiled(x)[0].copy(), int(compiled.get_property(KEY))


seen = {}
for length, group in ((384, 96), (312, 104)):
    base, rows = answer(length, group, 0)[0], []
    for size in SIZES:
        own, told = answer(length, group, size)
        difference = float(np.abs(own - base).max())
        seen[group, size] = (difference > 0, told == size)
        rows.append(f"{size} → {difference:.2g} ({told})")
    print(f"weights in groups of {group:3}: {', '.join(rows)}")
active = {key for key, (on, _) in seen.items() if on}
same = active == {(96, 16), (96, 32), (96, 96)} and all(told for _, told in seen.values())
sys.exit(0 if same else 1)
PY
