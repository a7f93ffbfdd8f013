"""Which code is running: version of the package, digest of its files, and the commit where the package lies in a git checkout."""

import hashlib
import platform
import subprocess
from collections.abc import Iterable
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from mangakd import __version__
from mangakd.core.invocation import PACKAGE


def code_version() -> dict[str, Any]:
    """mangakd: its version. digest: of its Python files. commit, dirty: null where the package is not tracked by git."""
    tracked = _git("ls-files", "--error-unmatch", "__init__.py") is not None
    commit = _git("rev-parse", "HEAD") if tracked else None
    changes = _git("status", "--porcelain", "--untracked-files=no") if commit else None
    return {
        "mangakd": __version__,
        "digest": code_digest(),
        "commit": commit,
        "dirty": None if changes is None else bool(changes),
    }


def code_digest() -> str:
    """sha256 over names and bytes of the package's Python files, 16 hex digits."""
    digest = hashlib.sha256()
    for file in sorted(PACKAGE.rglob("*.py")):
        digest.update(f"{file.relative_to(PACKAGE).as_posix()}\0".encode())
        digest.update(file.read_bytes())
    return digest.hexdigest()[:16]


def package_versions(packages: Iterable[str]) -> dict[str, str]:
    """mangakd, Python and those of `packages` that are installed under this name."""
    versions = {"mangakd": __version__, "python": platform.python_version()}
    for package in packages:
        try:
            versions[package] = version(package.replace("_", "-"))
        except PackageNotFoundError:  # the module's package has another name
            continue
    return versions


def _git(*words: str, folder: Path = PACKAGE) -> str | None:
    """What git prints; None where there is no git, no checkout or no such file."""
    try:
        done = subprocess.run(
            ["git", "--no-optional-locks", "-C", str(folder), *words],
            capture_output=True, text=True, timeout=30, check=True,
        )  # fmt: skip
    except (OSError, subprocess.SubprocessError):
        return None
    return done.stdout.strip()
