"""The same optimizer steps on 1 process, 2 with DDP, 2 with FSDP2, and with accumulation: benchmarks/parity.py, checked."""

import json
import subprocess
import sys
from typing import Any

import pytest
from conftest import REPO

WAYS = ("1 process, 2 micro-batches", "2 processes, DDP", "2 processes, DDP, 2 micro-batches",
        "2 processes, FSDP2", "2 processes, FSDP2, 2 micro-batches")  # fmt: skip


@pytest.fixture(scope="module")
def lines(tmp_path_factory: pytest.TempPathFactory) -> dict[str, dict[str, Any]]:
    file = tmp_path_factory.mktemp("parity") / "lines.json"
    command = [sys.executable, "benchmarks/parity.py", "--json", str(file)]
    done = subprocess.run(command, cwd=REPO, capture_output=True, text=True, timeout=600, check=False)
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    return {line["way"]: line for line in json.loads(file.read_text())}


@pytest.mark.parametrize("way", WAYS)
def test_losses_and_weights_agree(way: str, lines: dict[str, dict[str, Any]]) -> None:
    line = lines[way]
    assert line["steps"] == 21
    assert line["loss"] < 1e-5, "fp32: relative difference of any term at any step"
    assert line["weights"] < 1e-5 and line["projections"] < 1e-5
    assert line["equal_ranks"], "all ranks end with the same parameters, projections included"
