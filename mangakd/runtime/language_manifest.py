"""language.json of an exported language model: the variant, its engine, and the sha256 of each file.

The export of language models writes it last, so that a folder with language.json is whole. `read` verifies every file: a damaged
or exchanged file is refused before an engine opens it. An encoder or an encoder–decoder has manifest.json instead (manifest.py).
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, get_args

from mangakd.core.errors import UserError
from mangakd.runtime.file_hashes import verify

FILE, FORMAT = "language.json", 1
Engine = Literal["llama.cpp", "openvino", "transformers"]
_TYPES: Mapping[str, type] = {
    "variant": str, "engine": str, "model": str, "files": dict, "context": int, "chat": bool, "runtime": dict, "source": dict,
    "versions": dict, "metrics": dict,
}  # fmt: skip


@dataclass(frozen=True)
class LanguageManifest:
    """folder: of the variant. engine: what runs it. model: the file, or the folder itself, that the engine opens.

    context: tokens of prompt and answer together. chat: whether a chat template is in it. runtime: the engine's settings with
    which quality and speed were measured, and with which it is served. metrics: split → measurements. content: the whole file.
    """

    folder: Path
    variant: str
    engine: Engine
    model: Path
    context: int
    chat: bool
    runtime: Mapping[str, Any]
    metrics: Mapping[str, Any]
    content: Mapping[str, Any]


def is_language(folder: str | Path) -> bool:
    return (Path(folder).expanduser() / FILE).is_file()


def read(folder: str | Path) -> LanguageManifest:
    """Read language.json of `folder` and verify its files. Raises UserError that names the wrong file or key."""
    folder = Path(folder).expanduser()
    content = _content(folder / FILE)
    verify(content["files"], folder, FILE)
    return LanguageManifest(
        folder, content["variant"], content["engine"], folder / content["model"], content["context"], content["chat"],
        content["runtime"], content["metrics"], content,
    )  # fmt: skip


def _content(file: Path) -> dict[str, Any]:
    if not file.is_file():
        raise UserError(
            f"{file} is missing, so {file.parent} is no exported language model; `mangakd export` makes it."
        )
    try:
        content = json.loads(file.read_text(encoding="utf-8"))
    except (ValueError, RecursionError) as error:
        raise UserError(f"{file} is damaged: {error}. Export the student again.") from error
    if not isinstance(content, dict) or content.get("format") != FORMAT:
        raise UserError(
            f"{file} is not of format {FORMAT}, which this version of mangakd reads. Export the student again."
        )
    for key, kind in _TYPES.items():
        if type(content.get(key)) is not kind:
            raise UserError(f"{file} cannot be used: {key} is no {kind.__name__}. Export the student again.")
    if content["engine"] not in get_args(Engine):
        raise UserError(
            f"{file} cannot be used: engine is none of {', '.join(get_args(Engine))}. Export the student again."
        )
    inside = [name for name in (*content["files"], content["model"]) if not _stays_inside(name)]
    if inside:
        raise UserError(
            f"{file} cannot be used: {inside[0]!r} is no name of a file in the folder. Export the student again."
        )
    return content


def _stays_inside(name: str) -> bool:
    path = Path(name)
    return not path.is_absolute() and ".." not in path.parts and "\\" not in name
