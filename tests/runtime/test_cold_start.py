"""What scripts/benchmark_serving.py relies on: its proof of imports, its sides, its control groups, its slim environment."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

try:
    import torch  # noqa: F401
    import transformers  # noqa: F401
except ImportError as missing:
    pytest.skip(f"the other side of the benchmark: pip install torch transformers ({missing})", allow_module_level=True)

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "benchmarks"))

import cold_start
import cpu_quota
import slim
from cold_start import SIDE, Side
from made_variant import LABELS, variant


@pytest.mark.parametrize("backend", ["onnxruntime", "openvino"])
def test_no_module_of_torch_or_transformers_is_imported_up_to_an_answer(backend: str) -> None:
    """By Python's own list of imports (-X importtime), in an environment where both could be imported."""
    side = Side("served", (), variant(backend=backend), {})
    # By package: what importlib imports is listed by its submodules only.
    packages = {name.partition(".")[0] for name in cold_start.import_times(side)}
    assert {"mangakd", "numpy", "tokenizers", backend} <= packages and not packages & set(cold_start.HEAVY)
    assert cold_start.proof(side)["heavy"] == []


def test_a_side_is_measured_from_outside() -> None:
    found = Side("served", (sys.executable, str(SIDE), "runtime"), variant(), {}).measure(3, None)
    assert found["said"][0] in LABELS and [len(times) for times in found["warm_ms"]] == [3, 3]
    assert found["cold_s"] > 0 and found["cpu_s"] > 0 and found["peak_mb"] > 10


def test_a_side_that_fails_is_told(tmp_path: Path) -> None:
    with pytest.raises((RuntimeError, json.JSONDecodeError)):
        Side("nothing", (sys.executable, str(SIDE), "runtime"), tmp_path, {}).measure(0, None)


def test_other_answers_and_heavy_imports_are_faults() -> None:
    first = {cold_start.TORCH: ("a", 0.9), "good": ("a", 0.8), "bad": ("b", 0.9)}
    faults = cold_start.wrong({"heavy": {"heavy": ["torch"]}, "light": {"heavy": []}}, first)
    assert len(faults) == 2 and "heavy imported torch" in faults[0] and faults[1].startswith("bad says")


@pytest.mark.parametrize(
    ("memberships", "parent", "limits"),
    [
        (
            "4:memory:/m\n1:cpu,cpuacct:/box\n0::/\n",
            "cpu/box",
            {"cpu.cfs_period_us": "20000", "cpu.cfs_quota_us": "5789"},
        ),
        ("0::/box\n", "box", {"cpu.max": "5789 20000"}),
    ],
)
def test_a_quota_is_written_to_a_group_of_its_own(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, memberships: str, parent: str, limits: dict[str, str]
) -> None:
    me = tmp_path / "cgroup"
    me.write_text(memberships)
    (tmp_path / parent).mkdir(parents=True)
    with pytest.raises(FileNotFoundError), cpu_quota.quota(0.5, tmp_path, me):  # a folder, but no control group
        pass
    assert not list((tmp_path / parent).iterdir())
    real = Path.mkdir

    def as_the_kernel_does(self: Path) -> None:
        real(self)
        for name in limits:
            (self / name).touch()

    def gone(self: Path) -> None:
        for name, value in limits.items():
            assert (self / name).read_text() == value

    monkeypatch.setattr(Path, "mkdir", as_the_kernel_does)
    monkeypatch.setattr(Path, "rmdir", gone)
    with cpu_quota.quota(cpu_quota.share(512), tmp_path, me) as processes:
        assert processes.parent.parent == tmp_path / parent and processes.name == "cgroup.procs"


def test_a_process_enters_its_group_before_it_runs(tmp_path: Path) -> None:
    command = cpu_quota.within(
        tmp_path / "procs", [sys.executable, "-c", "import os, sys; print(os.getpid(), *sys.argv[1:])", "a b"]
    )
    said = subprocess.run(command, capture_output=True, text=True, check=True).stdout.split(maxsplit=1)
    assert said == [(tmp_path / "procs").read_text().strip(), "a b\n"]
    assert cpu_quota.within(None, ["x"]) == ["x"]


def test_pytorch_s_side_has_what_transformers_requires_and_no_more(tmp_path: Path) -> None:
    start, environment = slim.for_torch(tmp_path / "lean")
    tell = "import sys, transformers, torch; print(*sorted({m.partition('.')[0] for m in sys.modules}), transformers.__file__)"
    done = subprocess.run(
        [*start, "-c", tell], env=environment, capture_output=True, text=True, check=True
    ).stdout.split()
    assert str(tmp_path / "lean") in done[-1]
    assert {"torch", "transformers", "numpy"} <= set(done) and not {"sklearn", "pandas", "pyarrow", "mangakd"} & set(
        done
    )
