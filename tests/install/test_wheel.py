"""What pip installs from a wheel: built from the sdist, installed into a fresh environment, run outside the clone.

A .pth file lends it the dependencies of the environment that runs the tests. Python ignores the .pth files within a folder that a
.pth file names, so that an editable mangakd stays invisible.
"""

import os
import shutil
import subprocess
import sys
import sysconfig
import tarfile
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest
from conftest import REPO

pytest.importorskip("setuptools")
SOURCES = ("pyproject.toml", "setup.py", "README.md", "LICENSE", "mangakd", "conf")
TEAM = REPO / "tests" / "example_package"
COMMANDS = {file.stem for file in (REPO / "scripts").glob("*.py")} - {"benchmark_serving"}  # a benchmark of the clone
BUILD = "import sys; from setuptools import build_meta; getattr(build_meta, 'build_' + sys.argv[1])(sys.argv[2])"
HEAVY = """
import sys, mangakd.cli.console as console
sys.argv[1:] = ["--help"]
console.main()
print(sorted({"torch", "transformers", "numpy", "hydra", "omegaconf"} & set(sys.modules)), console.__file__)
"""

Run = Callable[..., "subprocess.CompletedProcess[str]"]


def ran(*words: object, **options: object) -> "subprocess.CompletedProcess[str]":
    return subprocess.run([str(word) for word in words], capture_output=True, text=True, timeout=500, **options)  # type: ignore[call-overload, no-any-return]


def build(kind: str, source: Path, to: Path) -> Path:
    """kind: wheel or sdist. Without a network: with the setuptools of this environment."""
    to.mkdir(exist_ok=True)
    ran(sys.executable, "-c", BUILD, kind, to, cwd=source, check=True)
    return next(to.glob("*.whl" if kind == "wheel" else "*.tar.gz"))


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    base = tmp_path_factory.mktemp("build")
    for name in SOURCES:
        source, target = REPO / name, base / "clone" / name
        target.parent.mkdir(exist_ok=True)
        shutil.copytree(source, target) if source.is_dir() else shutil.copy(source, target)
    with tarfile.open(build("sdist", base / "clone", base / "sdist")) as archive:
        archive.extractall(base / "unpacked", filter="data")
    return build("wheel", next((base / "unpacked").iterdir()), base / "wheel")


@pytest.fixture(scope="module")
def environment(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """bin/ of a fresh environment, in a path with a space."""
    base = tmp_path_factory.mktemp("fresh") / "a venv"
    ran(sys.executable, "-m", "venv", "--without-pip", base, check=True)
    python = base / "bin" / "python"
    team = build("wheel", shutil.copytree(TEAM, base.parent / "team"), base.parent / "wheels")
    pip = [sys.executable, "-m", "pip", "--python", python, "install", "--quiet", "--no-index", "--no-deps"]
    ran(*pip, wheel, team, check=True)
    site = ran(python, "-c", "import sysconfig; print(sysconfig.get_path('purelib'))", check=True).stdout.strip()
    (Path(site) / "dependencies.pth").write_text(sysconfig.get_path("purelib") + "\n")
    return base / "bin"


@pytest.fixture
def run(environment: Path, tmp_path: Path) -> Run:
    """run("mangakd", …) in an empty folder, without the clone's PYTHONPATH and cache."""
    env = {name: value for name, value in os.environ.items() if name not in ("PYTHONPATH", "MANGAKD_CACHE")}
    (tmp_path / "empty").mkdir()

    def here(program: str, *words: str) -> "subprocess.CompletedProcess[str]":
        return ran(environment / program, *words, cwd=tmp_path / "empty", env=env)

    return here


def test_wheel_and_sdist_hold_the_configs_and_prompts(wheel: Path) -> None:
    configs = {f"mangakd/{file.relative_to(REPO)}" for file in (REPO / "conf").rglob("*.yaml")}
    with zipfile.ZipFile(wheel) as archive:
        names = archive.namelist()
    assert configs == {name for name in names if name.endswith(".yaml")}
    prompts = {str(file.relative_to(REPO)) for file in (REPO / "mangakd").rglob("*.jinja")}
    assert prompts == {name for name in names if name.endswith(".jinja")} and prompts
    assert not [name for name in names if not name.startswith("mangakd")]


def test_help_lists_a_command_for_each_script_and_loads_nothing(run: Run, environment: Path) -> None:
    printed = run("python", "-c", HEAVY).stdout.splitlines()
    lines = {line.split()[0]: line for line in printed if line.startswith("  ")}
    assert set(lines) == {name.replace("_", "-") for name in COMMANDS | {"train"}}
    assert all(len(line.split()) > 3 for line in lines.values())
    heavy, _, file = printed[-1].partition(" ")
    assert heavy == "[]" and Path(file).is_relative_to(environment.parent)


@pytest.mark.parametrize(
    ("words", "code", "expected"),
    [
        (["--help"], 0, "usage: mangakd <command>"),
        (["exprt"], 1, "error: exprt is no command; did you mean export, report?"),
        (["experiment=quickstart"], 1, "before its overrides: mangakd train experiment=quickstart"),
        (["train", "--help"], 0, "mangakd train experiment=quickstart"),
        (["train", "lossses=output"], 1, "did you mean losses"),
        (["compare_runs", "a"], 1, "two or more runs: mangakd compare-runs outputs"),
        (["check-drift", "student=a"], 1, "mangakd check-drift student=<folder>"),
        (["serve", "nowhere"], 1, "nowhere has no manifest.json"),
    ],
)
def test_commands_from_an_empty_folder(words: list[str], code: int, expected: str, run: Run, tmp_path: Path) -> None:
    done = run("mangakd", *words)
    assert done.returncode == code, done.stderr
    assert expected in done.stdout + done.stderr
    assert "Traceback" not in done.stderr
    assert not list((tmp_path / "empty").iterdir())


def test_a_first_run_lands_in_the_current_folder(run: Run, tmp_path: Path) -> None:
    small = ["hardware=cpu", "student.layers=[1]", "data.max_length=16", "hardware.batch_size=16"]
    done = run("mangakd", "train", "debug=fast", *small)
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-2000:]
    (folder,) = (tmp_path / "empty" / "outputs" / "intent").iterdir()
    assert (folder / "student" / "model.safetensors").is_file() and (folder / "report.html").is_file()
    assert (folder / "command.txt").read_text().startswith("mangakd train debug=fast")
    assert "mangakd train debug=fast" in (folder / "student" / "README.md").read_text()
    assert {place.name for place in (tmp_path / "empty").iterdir()} == {"outputs", ".cache"}
    gate = run("mangakd", "gate", str(folder.relative_to(tmp_path / "empty")))
    assert "mangakd report run=outputs/intent" in gate.stdout and gate.returncode == 1


ONCE = """
import sys, mangakd
from mangakd.cli.once import train
print(train(*sys.argv[1:], folder="runs/first"), mangakd.__file__)
"""


def test_an_experiment_of_another_package_from_python(
    run: Run, environment: Path, tiny_fresh: Path, tmp_path: Path
) -> None:
    (tmp_path / "once.py").write_text(ONCE)
    tiny = [
        f"teacher.path={tiny_fresh}", "student.layers=[1,3]", "hardware=cpu", "hardware.batch_size=4", "trainer.max_epochs=1",
        "teacher.fit.epochs=8", "teacher.fit.lr=3e-3", "data.path=" + str(TEAM / "questions.csv"),
    ]  # fmt: skip
    search = "hydra.searchpath=[pkg://mangashop_templates.conf]"
    done = run("python", str(tmp_path / "once.py"), search, "experiment=shop_intent", *tiny)
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-2000:]
    folder = tmp_path / "empty" / "runs" / "first"
    assert str(folder) in done.stdout and str(environment.parent) in done.stdout.splitlines()[-1]
    assert "train/loss/margin" in (folder / "logs" / "metrics.csv").read_text()
