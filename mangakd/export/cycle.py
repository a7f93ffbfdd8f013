"""What the exports of encoders and of language models share of a variant's life: names, packages, failures, and what is kept.

A variant is written to `<name>.partial` and gets its name when it is whole, so its name tells what a killed export has left. A
variant that would not change is not made again.
"""

import contextlib
import hashlib
import importlib.util
import shutil
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

from mangakd.core.errors import UserError, near
from mangakd.runtime.manifest import PARTIAL


class Row(Protocol):
    """A row of a table of variants. needs: package → pip extra."""

    @property
    def name(self) -> str: ...

    @property
    def needs(self) -> Mapping[str, str]: ...


class Content(Protocol):
    @property
    def content(self) -> Mapping[str, Any]: ...


def check_names(names: Sequence[str], table: Iterable[str]) -> None:
    """Raises UserError for an unknown name, for a repeated name, and without names."""
    if not names:
        raise UserError(f"there is no variant to make; choose some of {', '.join(table)}.")
    twice = sorted({name for name in names if list(names).count(name) > 1})
    if twice:
        raise UserError(f"the variant {twice[0]} is named twice; name it once.")
    for name in names:
        if name not in table:
            raise UserError(f"there is no variant {name!r}{near(name, table)} Known: {', '.join(table)}.")


def check_packages(rows: Sequence[Row]) -> None:
    """Raises UserError that names all missing packages and the extras that install them."""
    missing = {
        package: extra
        for row in rows
        for package, extra in row.needs.items()
        if importlib.util.find_spec(package) is None
    }
    if missing:
        extras = ",".join(dict.fromkeys(missing.values()))
        names = ", ".join(row.name for row in rows if missing.keys() & row.needs.keys())
        raise UserError(
            f"{names} cannot be made: {', '.join(missing)} not installed. Install with: pip install 'mangakd[{extras}]'"
        )


@contextlib.contextmanager
def explain_failure(name: str, student: Path, model_type: str) -> Iterator[None]:
    """Context that turns a converter's exception into a UserError with the variant, the architecture and the fix."""
    try:
        yield
    except (UserError, OSError, MemoryError):
        raise
    except Exception as error:
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
        raise UserError(f"{name} cannot be made of {student} ({model_type}): {reason} Remove {name}.") from error


def is_made(folder: Path, content: Mapping[str, Any], read: Callable[[Path], Content]) -> bool:
    """Whether the folder holds this very variant, whole, from an earlier export."""
    try:
        before = read(folder).content
    except UserError:
        return False
    return all(before.get(key) == value for key, value in content.items())


def digest(texts: Sequence[str | tuple[str, ...]]) -> str:
    """Of the texts that calibrate a variant."""
    parts = [text if isinstance(text, str) else "\1".join(text) for text in texts]
    return hashlib.sha256("\0".join(parts).encode("utf-8", "surrogatepass")).hexdigest()[:16]


def sweep(out: Path) -> None:
    """Delete the partial folders of this export or of a killed export."""
    for path in out.glob(f"*{PARTIAL}"):
        shutil.rmtree(path, ignore_errors=True)
