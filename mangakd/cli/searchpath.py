"""Where Hydra looks for options: conf/, and what --config-dir and hydra.searchpath add (docs/how-to/templates.md).

Read out of Hydra's own message about an option that it did not find, the one place that names them when composing has failed.
"""

import re
from collections.abc import Iterator
from importlib import resources
from importlib.resources.abc import Traversable
from pathlib import Path

from mangakd.core.errors import near
from mangakd.core.invocation import CLONE, PACKAGE

INSTALLED = PACKAGE / "conf"  # a wheel's; a clone has the folder beside the package
CONF = INSTALLED if INSTALLED.is_dir() else CLONE / "conf"
SERVED = ("rollout",)  # folders of conf/ that `mangakd serve` reads, without Hydra


def groups() -> list[str]:
    return sorted(place.name for place in CONF.iterdir() if place.is_dir() and place.name not in SERVED)


def options_of(group: str) -> list[str]:
    """In conf/."""
    return sorted(_options(CONF, group))


def unknown_option(option: str, message: str) -> str:
    """What to say about `group/name`, which Hydra's `message` has not found; empty where no place has such a group."""
    group, _, name = option.strip("/").rpartition("/")
    names = sorted({folder for _, place in _places(message) if place is not None for folder in _options(place, group)})
    names = names or re.findall(r"^\t([\w-]+)$", message, re.MULTILINE)  # of Hydra and its plugins
    if not group or not names:
        return ""
    notes = "".join(
        f" {place} is not there: mend hydra.searchpath, or install the package that it names."
        for place, folder in _places(message)
        if folder is None
    )
    return f"{group}={name} is unknown{near(name, names)} Known: {', '.join(names)}.{notes}"


def _places(message: str) -> Iterator[tuple[str, Traversable | None]]:
    """(as it was written, the folder) of each; None where it is not there."""
    for kind, path in re.findall(r"path=(file|pkg)://(.+)", message):
        yield f"{kind}://{path}", Path(path) if kind == "file" and Path(path).is_dir() else _package(kind, path)


def _package(kind: str, path: str) -> Traversable | None:
    try:
        return resources.files(path.replace("/", ".")) if kind == "pkg" else None
    except (ModuleNotFoundError, TypeError, ValueError):
        return None


def _options(place: Traversable, group: str) -> Iterator[str]:
    folder = place.joinpath(*group.split("/"))
    for file in folder.iterdir() if folder.is_dir() else ():
        if file.name.endswith(".yaml") and not file.name.startswith("_"):
            yield file.name.removesuffix(".yaml")
