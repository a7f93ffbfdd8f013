"""Exported folders in optimum-intel and in a pipeline answer as the runtime does, which reads what optimum-intel exports.

optimum-intel is an environment of its own: `make test-optimum` builds it and runs this. MANGAKD_OPTIMUM_PYTHON names its Python.
"""

import importlib.util
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from exported import CALIBRATION, MAX_LENGTH, TEXTS, student, torch_says

from mangakd import runtime
from mangakd.export.variants import make

for package in ("openvino", "openvino_tokenizers", "nncf"):
    pytest.importorskip(package)
PYTHON = os.environ.get("MANGAKD_OPTIMUM_PYTHON")
if PYTHON is None and importlib.util.find_spec("optimum") and importlib.util.find_spec("optimum.intel"):
    PYTHON = sys.executable
if PYTHON is None:
    pytest.skip("needs optimum-intel: make test-optimum", allow_module_level=True)

NAMES = ("openvino_fp32", "openvino_int8")
KINDS = {"classifier": NAMES, "multi_label": ("openvino_fp32",), "regression": ("openvino_fp32",)}


@pytest.fixture(scope="module", params=KINDS)
def both(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> tuple[str, Path, dict[str, Any]]:
    """(kind of student, its root, what optimum-intel answers from the folder of each variant)."""
    root, kind = tmp_path_factory.mktemp(request.param), request.param
    made = make(student(root / "student", kind), root / "export", KINDS[kind], CALIBRATION, MAX_LENGTH)
    command = [PYTHON, str(Path(__file__).with_name("optimum_side.py")), str(root / "student"), str(root / "optimum")]
    done = subprocess.run(
        [*command, *map(str, made)], input=json.dumps(TEXTS), capture_output=True, text=True, timeout=600, check=False
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return kind, root, json.loads(done.stdout.splitlines()[-1])


def test_logits_and_pipelines_are_the_runtime_s(both: tuple[str, Path, dict[str, Any]]) -> None:
    kind, _, answers = both
    for folder, own in answers.items():
        model = runtime.load(folder, threads=1)
        np.testing.assert_allclose(model.outputs(TEXTS, len(TEXTS)), own["logits"], atol=1e-4, err_msg=folder)
        for given, scores in zip(model.predict(TEXTS, len(TEXTS)), own["pipeline"], strict=True):
            wanted = {model.labels[0]: given["value"]} if kind == "regression" else given["probabilities"]
            assert scores == pytest.approx(wanted, abs=1e-5)


def test_the_runtime_reads_what_optimum_exported(
    both: tuple[str, Path, dict[str, Any]], caplog: pytest.LogCaptureFixture
) -> None:
    kind, root, _ = both
    file = root / "optimum" / "tokenizer_config.json"
    file.write_text(json.dumps({**json.loads(file.read_text()), "model_max_length": MAX_LENGTH}))
    model = runtime.load(root / "optimum", threads=1)
    np.testing.assert_allclose(model.outputs(TEXTS), torch_says(root / "student", kind, TEXTS), atol=1e-4)
    assert "has no manifest.json; it is read as a folder of optimum" in caplog.text
