"""The same optimizer steps on 1 process, 2 with DDP, 2 with FSDP2, and with accumulation: benchmarks/parity.py, checked."""

import sys
from typing import Any

import pytest
from conftest import REPO

sys.path.insert(0, str(REPO / "benchmarks"))

from parity import all_ways

WAYS = ("1 process, 2 micro-batches", "2 processes, DDP", "2 processes, DDP, 2 micro-batches",
        "2 processes, FSDP2", "2 processes, FSDP2, 2 micro-batches")  # fmt: skip


@pytest.fixture(scope="module")
def lines(forked_ranks: None, tmp_path_factory: pytest.TempPathFactory) -> dict[str, dict[str, Any]]:
    return {line["way"]: line for line in all_ways(tmp_path_factory.mktemp("parity"))}


@pytest.mark.parametrize("way", WAYS)
def test_losses_and_weights_agree(way: str, lines: dict[str, dict[str, Any]]) -> None:
    line = lines[way]
    assert line["steps"] == 21
    assert line["loss"] < 1e-5, "fp32: relative difference of any term at any step"
    assert line["weights"] < 1e-5 and line["projections"] < 1e-5
    assert line["equal_ranks"], "all ranks end with the same parameters, projections included"
