"""Packages of the extra `curate`."""

import importlib
from importlib.metadata import PackageNotFoundError, version
from types import ModuleType

from mangakd.core.errors import UserError

PACKAGES = ("datasketch", "py3langid", "presidio-analyzer", "phonenumbers")


def package(module: str, need: str) -> ModuleType:
    """The module of a package. need: the subject of the message, such as a key. Raises UserError where it is not installed."""
    try:
        return importlib.import_module(module)
    except ImportError as error:
        raise UserError(
            f"{need} needs the package {module.partition('.')[0]}, which is not installed here. Install it with: "
            "pip install 'mangakd[curate]'"
        ) from error


def versions() -> dict[str, str | None]:
    """The version of each package, None where it is not installed."""
    return {name: _version(name) for name in PACKAGES}


def _version(name: str) -> str | None:
    try:
        return version(name)
    except PackageNotFoundError:
        return None
