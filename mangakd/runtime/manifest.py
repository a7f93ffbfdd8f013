"""manifest.json of an exported folder: the variant, the inputs and outputs of its model, and the sha256 of each file.

The export writes the manifest, and `read` checks it: a damaged, changed or missing file is refused before it is opened. The
hashes detect accidents and partial copies. They do not stop an attacker who can also change the manifest, so restrict the
folder's permissions.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from mangakd.core.errors import UserError
from mangakd.core.spec import Head, Kind
from mangakd.runtime.decoding import TOKENS, Decoding
from mangakd.runtime.file_hashes import verify
from mangakd.runtime.late import VECTORS, Late
from mangakd.runtime.turns import Turns

FORMAT, READ = 3, (2, 3)  # format 2 knows no pairs and no prompts
PARTIAL = ".partial"  # ends the name of a folder that is being written
BACKENDS = ("onnxruntime", "openvino")
INPUTS = ("input_ids", "attention_mask", "token_type_ids")
OUTPUT: dict[Kind, str] = {"labels": "logits", "score": "logits", "vector": "embedding", "tokens": TOKENS}
_REQUIRED = {
    "variant": str, "backend": str, "files": dict, "model": str, "inputs": list, "output": str, "head": dict,
    "tokenizer": dict, "tolerance": float,
}  # fmt: skip
_HEAD = {"kind": str, "outputs": int, "names": list}
_SWITCHES = ("several", "source")  # of a head
_TOKENIZER = {"file": str, "max_length": int, "pad_id": int, "pad_type_id": int}


@dataclass(frozen=True)
class Manifest:
    """folder: of the variant. model: its file; of a student that writes, the encoder's. content: the whole manifest, in this
    version's format.

    pairs: whether the model scores a query with a document. late: how it reads the two apart, if it does. prompts: name → what
    stands before each text. default_prompt: the name of the prompt that is used unless another one is asked for. dims: sizes to
    which vectors have learned to be cut. decoding: how a student writes, if it does. turns: how it reads
    those of a conversation, if it does.
    rows_independent: whether a row of an answer depends on its own text only, not on other texts of the batch. tolerance:
    largest distance of a logit (or of an entry of an embedding) to the PyTorch student's; of a student that writes, of the
    logits of the next token in a few texts.
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
    pairs: bool = False
    prompts: Mapping[str, str] = field(default_factory=dict)
    default_prompt: str | None = None
    dims: tuple[int, ...] = ()
    late: Late | None = None
    decoding: Decoding | None = None
    turns: Turns | None = None


def read(folder: str | Path) -> Manifest:
    """Read the manifest of `folder` and verify its files. Raises UserError that names the wrong file or key."""
    folder = Path(folder).expanduser()
    if folder.name.endswith(PARTIAL):
        raise UserError(f"{folder} was not finished: its export is running or was killed. Export the student again.")
    content = _content(folder)
    _check(content, folder)
    verify(content["files"], folder, "the manifest")
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
        head=Head.read(content["head"]),
        rows_independent=rows_independent(content),
        tolerance=float(content["tolerance"]),
        content=content,
        **questions(content),
    )


def questions(content: Mapping[str, Any]) -> dict[str, Any]:
    """What the manifest says of the texts that the model is asked about."""
    return {
        "pairs": content.get("pairs", False), "prompts": content.get("prompts", {}),
        "default_prompt": content.get("default_prompt"), "dims": tuple(content.get("dims", ())),
        "late": content.get("late") and Late.read(content["late"]),
        "decoding": content.get("decoding") and Decoding.read(content["decoding"]),
        "turns": content.get("turns") and Turns.read(content["turns"]),
    }  # fmt: skip


def rows_independent(content: dict[str, Any]) -> bool:
    """The export's measurement. Old exports did not measure; of their variants only onnx_int8 scales over the whole batch."""
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
    except (ValueError, RecursionError) as error:  # ValueError also for bytes that are no UTF-8
        raise UserError(f"{file} is damaged: {error}. Export the student again.") from error
    if isinstance(content, dict) and content.get("format") == 1:
        return _of_format_1(content, folder)
    if not isinstance(content, dict) or content.get("format") not in READ:
        version = content.get("format") if isinstance(content, dict) else type(content).__name__
        raise UserError(
            f"{file} has format {version!r}; this version of mangakd reads format 1 to {FORMAT}. Export the student again, or "
            "install the version of mangakd that exported it."
        )
    return content


def _of_format_1(content: dict[str, Any], folder: Path) -> dict[str, Any]:
    """The content with a `head`. Format 1 had `problem` and `labels`, and lacked the width of an embedding (0 here)."""
    heads: dict[str, tuple[Kind, bool]] = {
        "single_label": ("labels", False), "multi_label": ("labels", True), "regression": ("score", False),
        "embedding": ("vector", False),
    }  # fmt: skip
    _check_types(content, {"problem": str, "labels": list}, folder, "")
    rest = {key: value for key, value in content.items() if key not in ("problem", "labels")}
    if content["problem"] not in heads:
        raise UserError(_wrong(folder, "problem"))
    (kind, several), names = heads[content["problem"]], content["labels"]
    outputs = len(names) or (1 if kind == "score" else 0)
    return {**rest, "format": READ[0], "head": {"kind": kind, "outputs": outputs, "names": names, "several": several}}


def _check(content: dict[str, Any], folder: Path) -> None:
    """Everything in the manifest has the type and the range that the runtime relies on."""
    _check_types(content, _REQUIRED, folder, "")
    tokenizer = content["tokenizer"]
    _check_types(tokenizer, _TOKENIZER, folder, "tokenizer.")
    head, files = content["head"], content["files"]
    _check_types(head, _HEAD, folder, "head.")
    names = head["names"]
    output = VECTORS if content.get("late") else OUTPUT.get(head["kind"], content["output"])
    right = {
        "backend": content["backend"] in BACKENDS,
        "head": {*_HEAD, "several"} <= head.keys() <= {*_HEAD, *_SWITCHES}
        and all(isinstance(head.get(name, False), bool) for name in _SWITCHES)
        and head.get("source", False) == (head["kind"] == "tokens"),
        "head.kind": head["kind"] in OUTPUT,
        "head.outputs": head["outputs"] >= 0,
        "head.names": all(isinstance(name, str) for name in names)
        and len(set(names)) == len(names) in (0, head["outputs"]),
        "output": content["output"] == output,
        "inputs": "input_ids" in content["inputs"] and all(name in INPUTS for name in content["inputs"]),
        "rows_independent": isinstance(content.get("rows_independent", True), bool),
        "pairs": isinstance(pairs := content.get("pairs", False), bool) and (not pairs or _scores(head)),
        "late": content.get("late") is None or (content.get("pairs") is True and _reads_apart(content["late"])),
        "decoding": _is_decoding(content.get("decoding"), files)
        if head["kind"] == "tokens"
        else content.get("decoding") is None,
        "turns": content.get("turns") is None or (content.get("decoding") is not None and _joins(content["turns"])),
        "prompts": _are_texts(content.get("prompts", {})),
        "default_prompt": content.get("default_prompt") in (None, *content.get("prompts", {})),
        "dims": isinstance(dims := content.get("dims", []), list)
        and all(type(size) is int and size > 0 for size in dims),
        "tokenizer.max_length": tokenizer["max_length"] > 0,
        "tokenizer.truncation_side": tokenizer.get("truncation_side", "right") in ("left", "right"),
        "files": all(_plain(name) and isinstance(digest, str) for name, digest in files.items()),
        "model": content["model"] in files,
        "tokenizer.file": tokenizer["file"] in files,
    }
    if wrong := [key for key, fine in right.items() if not fine]:
        raise UserError(_wrong(folder, ", ".join(wrong)))


def _scores(head: Mapping[str, Any]) -> bool:
    return head["kind"] == "score" and head["outputs"] == 1


def _reads_apart(late: Any) -> bool:
    try:
        return bool(Late.read(late))
    except (KeyError, TypeError, ValueError):
        return False


def _is_decoding(entry: Any, files: Mapping[str, str]) -> bool:
    try:
        return Decoding.read(entry).model in files
    except (KeyError, TypeError, ValueError):
        return False


def _joins(entry: Any) -> bool:
    try:
        return bool(Turns.read(entry))
    except (AttributeError, TypeError, ValueError):
        return False


def _are_texts(prompts: Any) -> bool:
    return isinstance(prompts, dict) and all(isinstance(text, str) for text in prompts.values())


def _check_types(content: dict[str, Any], types: dict[str, type], folder: Path, prefix: str) -> None:
    for key, kind in types.items():
        value = content.get(key)
        fits = isinstance(value, (int, float) if kind is float else kind) and not isinstance(value, bool)
        if not fits:
            actual = "nothing" if value is None else repr(value)[:60]
            raise UserError(_wrong(folder, f"{prefix}{key} (wanted {kind.__name__}, found {actual})"))


def _wrong(folder: Path, what: str) -> str:
    return f"{folder / 'manifest.json'} cannot be used: {what} is wrong. Export the student again."


def _plain(name: str) -> bool:
    """Whether a name is a plain file name: no path that leaves the folder."""
    return name != ".." and bool(name) and Path(name).name == name and "\\" not in name
