"""Variants of small students, made once for all tests and all workers: converting a model takes seconds. Copy what is changed."""

import functools
import os
from collections.abc import Callable
from pathlib import Path

import pytest

Made = Callable[..., tuple[Path, Path]]


@pytest.fixture(scope="session")
def made(tmp_path_factory: pytest.TempPathFactory) -> Made:
    """made(kind, names) → (student, folder that holds its variants `names`, and perhaps others)."""
    from exported import CALIBRATION, MAX_LENGTH, student

    from mangakd.core.locks import waiting_lock
    from mangakd.export.variants import make

    base = tmp_path_factory.getbasetemp()
    root = (base.parent if "PYTEST_XDIST_WORKER" in os.environ else base) / "variants"

    @functools.cache
    def get(kind: str, names: tuple[str, ...]) -> tuple[Path, Path]:
        source, out = root / kind / "student", root / kind / "export"
        source.parent.mkdir(parents=True, exist_ok=True)
        with waiting_lock(source.parent / "lock", "making variants"):
            if not source.exists():
                student(source, kind)
            missing = [name for name in names if not (out / name).is_dir()]
            if missing:
                make(source, out, missing, CALIBRATION, MAX_LENGTH)
        return source, out

    return get
