"""manifest.json of an exported folder: what is in it, how its model is asked, and the sha256 of each of its files.

The export writes it, `read` checks it: a file that was damaged, changed or left behind is refused before it is opened. The sums
find accidents and half-copied folders; who can change the manifest too can change everything, so keep the folder's rights tight.
"""

import hashlib
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mangakd.core.errors import UserError
from mangakd.core.spec import Head, Kind

FORMAT = 2
PARTIAL = ".partial"  # ends the name of a folder that is being written
BACKENDS = ("onnxruntime", "openvino")
INPUTS = ("input_ids", "attention_mask", "token_type_ids")
SERVED: tuple[Kind, ...] = ("labels", "score", "vector")
_REQUIRED = {
    "variant": str, "backend": str, "files": dict, "model": str, "inputs": list, "output": str, "head": dict,
    "tokenizer": dict, "tolerance": float,
}  # fmt: skip
_HEAD = {"kind": str, "outputs": int, "names": list}
_TOKENIZER = {"file": str, "max_length": int, "pad_id": int, "pad_type_id": int}


@dataclass(frozen=True)
class Manifest:
    """folder: where it lies. head: what the model answers with. content: all of it, in this version's format.

    rows_independent: whether a row of an answer depends on its own text alone, whatever else is in the batch. tolerance: how far
    a logit (an entry of the embedding) may be from the PyTorch student's.
    """

    folder: Path
    variant: str
    backend: str
    model: Path
    tokenizer: Path
    max_length: int
    pad_id: int
    pad_type_id: int
    truncation_side: str
    inputs: tuple[str, ...]
    output: str
    head: Head
    rows_independent: bool
    tolerance: float
    content: dict[str, Any]


def read(folder: str | Path) -> Manifest:
    """The manifest of `folder`, its files verified. Raises UserError, naming the file or the key that is wrong."""
    folder = Path(folder).expanduser()
    if folder.name.endswith(PARTIAL):
        raise UserError(f"{folder} was not finished: its export is running or was killed. Export the student again.")
    content = _content(folder)
    _check(content, folder)
    _verify(content["files"], folder)
    tokenizer = content["tokenizer"]
    return Manifest(
        folder=folder,
        variant=content["variant"],
        backend=content["backend"],
        model=folder / content["model"],
        tokenizer=folder / tokenizer["file"],
        max_length=tokenizer["max_length"],
        pad_id=tokenizer["pad_id"],
        pad_type_id=tokenizer["pad_type_id"],
        truncation_side=tokenizer.get("truncation_side", "right"),
        inputs=tuple(content["inputs"]),
        output=content["output"],
        head=head_of(content),
        rows_independent=rows_independent(content),
        tolerance=float(content["tolerance"]),
        content=content,
    )


def head_of(content: dict[str, Any]) -> Head:
    """From a manifest's content, which holds `asdict(head)`."""
    return Head(**{**content["head"], "names": tuple(content["head"]["names"])})


def rows_independent(content: dict[str, Any]) -> bool:
    """What the export measured. Before it did, onnx_int8 was the one variant that scaled activations over the whole batch."""
    return content.get("rows_independent", (content["backend"], content["variant"]) != ("onnxruntime", "onnx_int8"))


def _content(folder: Path) -> dict[str, Any]:
    file = folder / "manifest.json"
    if not file.is_file():
        raise UserError(
            f"{folder} has no manifest.json, so it is no exported student. Give the folder of one variant, such as "
            "export/best; `mangakd export` makes it."
        )
    try:
        content = json.loads(file.read_text(encoding="utf-8"))
    except (ValueError, RecursionError) as error:  # also bytes that are no UTF-8
        raise UserError(f"{file} is damaged: {error}. Export the student again.") from error
    if isinstance(content, dict) and content.get("format") == 1:
        return _of_format_1(content, folder)
    if not isinstance(content, dict) or content.get("format") != FORMAT:
        found = content.get("format") if isinstance(content, dict) else type(content).__name__
        raise UserError(
            f"{file} has format {found!r}; this version of mangakd reads format {FORMAT}. Export the student again, or "
            "install the version of mangakd that exported it."
        )
    return content


def _of_format_1(content: dict[str, Any], folder: Path) -> dict[str, Any]:
    """The same content with a `head`: format 1 had `problem` and `labels`, and did not say how wide an embedding is (0 here)."""
    heads: dict[str, tuple[Kind, bool]] = {
        "single_label": ("labels", False), "multi_label": ("labels", True), "regression": ("score", False),
        "embedding": ("vector", False),
    }  # fmt: skip
    _typed(content, {"problem": str, "labels": list}, folder, "")
    rest = {key: value for key, value in content.items() if key not in ("problem", "labels")}
    if content["problem"] not in heads:
        raise UserError(_wrong(folder, "problem"))
    (kind, several), names = heads[content["problem"]], content["labels"]
    outputs = len(names) or (1 if kind == "score" else 0)
    return {**rest, "format": FORMAT, "head": {"kind": kind, "outputs": outputs, "names": names, "several": several}}


def _check(content: dict[str, Any], folder: Path) -> None:
    """Everything in the manifest has the type and the range that the runtime relies on."""
    _typed(content, _REQUIRED, folder, "")
    tokenizer = content["tokenizer"]
    _typed(tokenizer, _TOKENIZER, folder, "tokenizer.")
    head, files = content["head"], content["files"]
    _typed(head, _HEAD, folder, "head.")
    names = head["names"]
    output = "embedding" if head["kind"] == "vector" else "logits"
    right = {
        "backend": content["backend"] in BACKENDS,
        "head": head.keys() == {*_HEAD, "several"} and isinstance(head["several"], bool),
        "head.kind": head["kind"] in SERVED,
        "head.outputs": head["outputs"] >= 0,
        "head.names": all(isinstance(name, str) for name in names)
        and len(set(names)) == len(names) in (0, head["outputs"]),
        "output": content["output"] == output,
        "inputs": "input_ids" in content["inputs"] and all(name in INPUTS for name in content["inputs"]),
        "rows_independent": isinstance(content.get("rows_independent", True), bool),
        "tokenizer.max_length": tokenizer["max_length"] > 0,
        "tokenizer.truncation_side": tokenizer.get("truncation_side", "right") in ("left", "right"),
        "files": all(_plain(name) and isinstance(digest, str) for name, digest in files.items()),
        "model": content["model"] in files,
        "tokenizer.file": tokenizer["file"] in files,
    }
    if wrong := [key for key, fine in right.items() if not fine]:
        raise UserError(_wrong(folder, ", ".join(wrong)))


def _typed(content: dict[str, Any], wanted: dict[str, type], folder: Path, prefix: str) -> None:
    for key, kind in wanted.items():
        value = content.get(key)
        fits = isinstance(value, (int, float) if kind is float else kind) and not isinstance(value, bool)
        if not fits:
            found = "nothing" if value is None else repr(value)[:60]
            raise UserError(_wrong(folder, f"{prefix}{key} (wanted {kind.__name__}, found {found})"))


def _wrong(folder: Path, what: str) -> str:
    return f"{folder / 'manifest.json'} cannot be used: {what} is wrong. Export the student again."


def _plain(name: str) -> bool:
    """A name of this folder, not a way out of it."""
    return name != ".." and bool(name) and Path(name).name == name and "\\" not in name


def _verify(files: dict[str, str], folder: Path) -> None:
    for name, wanted in files.items():
        file = folder / name
        if not file.is_file():
            raise UserError(
                f"{file} is missing: {folder} was copied in part. Copy it again, or export the student again."
            )
        with file.open("rb") as stream:
            found = hashlib.file_digest(stream, "sha256").hexdigest()
        if found != wanted:
            raise UserError(
                f"{file} is not the file that was exported: its sha256 is {found[:12]}…, the manifest says {wanted[:12]}…. "
                "Copy the folder again, or export the student again."
            )
