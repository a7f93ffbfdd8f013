"""Minimal environments for the sides of a comparison: imports are most of a cold start.

`for_runtime` installs the packages of a server. `for_torch` links torch, transformers and their requirements from this
interpreter's packages into a folder, because transformers also imports scikit-learn, pandas and others if they are installed.
"""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
import venv
from collections.abc import Iterable, Sequence
from importlib.metadata import PackageNotFoundError, distribution, version
from pathlib import Path

REPO = Path(__file__).resolve().parents[1]
BUILT_FROM = ("mangakd", "pyproject.toml", "README.md", "LICENSE")


def for_runtime(folder: Path, backends: Iterable[str]) -> Path:
    """The Python of a new environment: numpy, tokenizers, `backends` in this one's versions, and mangakd, without more.

    Raises CalledProcessError when pip cannot install them.
    """
    venv.create(folder, with_pip=True)
    python = folder / "bin" / "python"
    pins = [f"{name}=={version(name)}" for name in ("numpy", "tokenizers", *backends)]
    _pip(python, "--only-binary=:all:", *pins)
    _pip(python, str(_sources(folder / "src")))
    return python


def _pip(python: Path, *words: str) -> None:
    options = ["--quiet", "--no-deps", "--disable-pip-version-check", "-c", str(REPO / "constraints.txt")]
    subprocess.run([str(python), "-m", "pip", "install", *options, *words], check=True)


def _sources(to: Path) -> Path:
    """A copy, because pip builds in place and would leave its files in the repository."""
    to.mkdir()
    for name in BUILT_FROM:
        source = REPO / name
        shutil.copytree(source, to / name) if source.is_dir() else shutil.copy(source, to / name)
    return to


def for_torch(folder: Path) -> tuple[list[str], dict[str, str]]:
    """How to start Python with torch and transformers alone: the command's first words, and its environment."""
    folder.mkdir()
    for name in _requirements(["torch", "transformers"]):
        files = distribution(name).files or ()
        for top in {file.parts[0] for file in files} - {"..", "__pycache__"}:
            source = Path(str(distribution(name).locate_file(top)))
            if source.exists() and not (folder / top).exists():
                (folder / top).symlink_to(source)
    return [sys.executable, "-S"], {"PYTHONPATH": str(folder)}  # -S: without the packages that are installed


def _requirements(names: Sequence[str]) -> list[str]:
    """These distributions and their installed requirements, without extras."""
    distributions, queue = dict[str, None](), list(names)
    while queue:
        name = re.sub(r"[-_.]+", "-", queue.pop()).lower()
        if name in distributions:
            continue
        try:
            requires = distribution(name).requires or []
        except PackageNotFoundError:  # of another platform
            continue
        distributions[name] = None
        queue += [re.split(r"[^\w.-]", line, maxsplit=1)[0] for line in requires if "extra ==" not in line]
    return list(distributions)
