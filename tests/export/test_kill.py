"""An export that is killed leaves nothing that looks finished and is not; the next one cleans up. Needs onnx."""

import random
import signal
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from mangakd.core.errors import UserError

NAMES = ("onnx_fp32", "onnx_int8")
# How far the export has come when it is killed, seen from outside.
STAGES = {
    "at the start": lambda out: (out / "onnx_fp32.partial").is_dir(),
    "while a file is written": lambda out: (out / "onnx_fp32.partial" / "model.onnx").exists(),
    "between two variants": lambda out: (out / "onnx_fp32").is_dir(),
}


def export_for_ever(source: Path, out: Path) -> None:
    from exported import MAX_LENGTH

    from mangakd.export.variants import make

    while True:
        make(source, out, NAMES, max_length=MAX_LENGTH)


def test_what_a_kill_leaves_is_whole_or_refused(server: Any, tmp_path: Path) -> None:
    for package in ("onnx", "onnxscript", "onnxruntime"):
        pytest.importorskip(package)
    from exported import MAX_LENGTH, TEXTS, student, torch_says

    from mangakd import runtime
    from mangakd.export.manifest import read
    from mangakd.export.variants import make

    source, out = student(tmp_path / "student", "classifier"), tmp_path / "export"
    chance = random.Random(0)
    wanted = torch_says(source, "classifier", TEXTS)
    for reached in STAGES.values():
        child = server.Process(target=export_for_ever, args=(source, out))
        child.start()
        while child.is_alive() and not reached(out):
            time.sleep(0.001)
        time.sleep(chance.uniform(0, 0.02))
        child.kill()
        child.join()
        assert child.exitcode == -signal.SIGKILL
        for folder in [path for path in out.iterdir() if path.is_dir()]:
            if folder.name.endswith(".partial"):
                with pytest.raises(UserError, match="not finished"):
                    read(folder)
            else:
                np.testing.assert_allclose(runtime.load(folder, threads=1).outputs(TEXTS), wanted, atol=0.5)
    assert any(path.name.endswith(".partial") for path in out.iterdir())
    make(source, out, NAMES, max_length=MAX_LENGTH)
    assert {path.name for path in out.iterdir()} == {*NAMES, ".lock"}
    np.testing.assert_allclose(runtime.load(out / "onnx_fp32").outputs(TEXTS), wanted, atol=1e-4)
