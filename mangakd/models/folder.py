"""Files of a model folder: read and written as JSON, and what they hold that the libraries which read them pass over."""

import json
import re
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from transformers.utils import cached_file

from mangakd.core.errors import UserError


def model_file(where: str | Path, name: str) -> Path | None:
    """A file of a folder or hub id; None where there is none."""
    if not str(where):  # of a model that comes from no folder
        return None
    if Path(where).is_dir():
        return file if (file := Path(where) / name).is_file() else None
    cached = cached_file(str(where), name, _raise_exceptions_for_missing_entries=False)
    return Path(cached) if cached else None


def read_object(where: str | Path, name: str) -> dict[str, Any]:
    """A JSON object of a folder or hub id; {} where there is no such file. Raises UserError for other content."""
    file = model_file(where, name)
    content = {} if file is None else read_json(file)
    if not isinstance(content, dict):
        raise UserError(f"{file} holds a {type(content).__name__}, not an object.")
    return content


def read_json(file: Path) -> Any:
    """Raises UserError for a file that is no JSON."""
    try:
        return json.loads(file.read_text(encoding="utf-8-sig"))  # some editors write a byte order mark
    except (ValueError, RecursionError) as error:
        raise UserError(f"{file} is damaged: {error}.") from error


def write_json(file: Path, content: Any) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(json.dumps(content, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")


def check_tokenizer_files(folder: Path, path: str, key: str) -> None:
    for name, entry in (
        ("tokenizer_config.json", None),
        ("special_tokens_map.json", None),
        ("tokenizer.json", "model"),
    ):
        if not (folder / name).is_file():
            continue
        try:
            content = json.loads((folder / name).read_text(encoding="utf-8"))
        except ValueError as error:
            refuse_pointer(folder, path, key)
            raise UserError(
                f"{name} of {key}={path} is no JSON: {error}. Save it again with save_pretrained."
            ) from error
        if not isinstance(content, dict) or (entry and entry not in content):
            what = f"an object with the entry {entry!r}" if entry else "an object"
            raise UserError(f"{name} of {key}={path} holds no {what[3:]}. Save it again with save_pretrained.")


def refuse_pointer(folder: Path, path: str, key: str) -> None:
    """Raises UserError where a file of the folder stands for another one, which was not fetched."""
    for file in sorted(folder.glob("*.*")) if folder.is_dir() else ():
        if not file.is_file():
            continue
        with file.open("rb") as content:
            if content.read(40).startswith(b"version https://git-lfs"):
                raise UserError(
                    f"{key}={path}: {file.name} is a pointer of Git LFS, not the file itself. Run `git lfs pull` in that folder."
                )


def refuse_gguf(folder: Path, path: str, key: str) -> None:
    """Raises UserError where a path is a GGUF file, or its folder holds such files and no other weights."""
    files = [folder] if folder.suffix == ".gguf" else sorted(folder.glob("*.gguf")) if folder.is_dir() else []
    if files and not any(folder.glob("*.safetensors")) and not any(folder.glob("*.bin")):
        raise UserError(
            f"{key}={path} holds GGUF weights ({files[0].name}), which are for inference and mostly quantised. Give {key} the "
            "folder or hub id with the safetensors that they were made from."
        )


def check_depth(model: Any, unexpected: Iterable[str], path: str, key: str) -> None:
    """Raises UserError where the weights have more layers than config.json: those behind its count would be left out."""
    names = [*model.state_dict()]
    for name in sorted(unexpected, reverse=True):
        for match in re.finditer(r"\.(\d+)\.", name):
            stem = f"{name[: match.start()]}."
            numbers = {number for other in names if (number := _number_after(stem, other)) is not None}
            if numbers and int(match[1]) not in numbers:
                there = 1 + max(n for other in unexpected if (n := _number_after(stem, other)) is not None)
                entry = model.config.attribute_map.get("num_hidden_layers", "num_hidden_layers")
                raise UserError(
                    f"{key}={path}: its weights have {there} layers ({name}) and {entry} of its config.json makes "
                    f"{len(numbers)}, so the last ones would be left out. Set {entry} to {there}, or give {key} a folder that "
                    "save_pretrained wrote whole."
                )


def _number_after(stem: str, name: str) -> int | None:
    """2 for `encoder.layer.` and `bert.encoder.layer.2.output`; base models are saved without their prefix."""
    match = re.search(rf"(?:^|\.){re.escape(stem)}(\d+)\.", name)
    return int(match[1]) if match else None
