"""Reads folders of optimum-intel or optimum-onnx: a model, config.json, a tokenizer, and no manifest.

    optimum-cli export openvino --model FOLDER --task text-classification EXPORTED

Hugging Face's files contain the manifest's information, except the files' hashes. A missing setting is an error, never a guess.
"""

import json
import logging
from pathlib import Path
from typing import Any

from mangakd.core.errors import UserError
from mangakd.core.spec import Head
from mangakd.runtime.backends import import_backend
from mangakd.runtime.manifest import INPUTS, PARTIAL, Manifest
from mangakd.runtime.signal_stack import keep_signal_stack

MODELS = {"openvino_model.xml": "openvino", "model.onnx": "onnxruntime"}
HEAD = "ForSequenceClassification"
CROSS_ENCODER = ("sentence_transformers", "sbert_ce_default_activation_function")  # one of them is in its config.json
UNKNOWN = 10**9  # tokens; transformers writes 10^30 for a tokenizer without a limit
log = logging.getLogger("mangakd.runtime")


def is_export(folder: Path) -> bool:
    """Whether `folder` has no manifest, but all files that `manifest_of` needs."""
    files = {path.name for path in folder.iterdir()} if folder.is_dir() else set()
    return "manifest.json" not in files and {"config.json", "tokenizer.json"} < files and not files.isdisjoint(MODELS)


def manifest_of(folder: Path) -> Manifest:
    """The manifest of such a folder. Raises UserError that names a setting that the folder's files lack."""
    if folder.name.endswith(PARTIAL):
        raise UserError(f"{folder} was not finished: its export is running or was killed. Export the student again.")
    name = next(name for name in MODELS if (folder / name).is_file())
    backend, config, tokenizer = MODELS[name], _json(folder / "config.json"), _json(folder / "tokenizer_config.json")
    _check_head(config, folder)
    head = _head(config, folder)
    manifest = Manifest(
        folder=folder, variant=folder.resolve().name, backend=backend, model=folder / name,
        tokenizer=folder / "tokenizer.json", max_length=_max_length(config, tokenizer, folder),
        pad_id=_pad_id(config, tokenizer, folder), pad_type_id=0,
        truncation_side=tokenizer.get("truncation_side", "right"), inputs=_inputs(backend, folder / name), output="logits",
        head=head, rows_independent=not _scales_activations_at_run_time(folder / name),
        tolerance=float("inf"), content={}, pairs=head == Head("score", 1) and any(key in config for key in CROSS_ENCODER),
    )  # fmt: skip
    log.warning(
        "%s has no manifest.json; it is read as a folder of optimum: %s, %s, texts truncated to %d tokens. Its files "
        "cannot be verified.", folder, backend, head, manifest.max_length,
    )  # fmt: skip
    return manifest


def _json(file: Path) -> dict[str, Any]:
    try:
        content = json.loads(file.read_text(encoding="utf-8")) if file.is_file() else {}
    except (ValueError, RecursionError) as error:
        raise UserError(f"{file} is damaged: {error}.") from error
    if not isinstance(content, dict):
        raise UserError(f"{file} holds a {type(content).__name__}, not an object.")
    return content


def _check_head(config: dict[str, Any], folder: Path) -> None:
    others = [name for name in config.get("architectures") or [] if not str(name).endswith(HEAD)]
    if others:
        raise UserError(
            f"{folder} holds a {others[0]} (architectures in config.json), and has no manifest.json that says how its output is "
            f"read. Only models …{HEAD} are served without one; `mangakd export` exports encoders with their pooling."
        )


def _head(config: dict[str, Any], folder: Path) -> Head:
    names = config.get("id2label") or {}
    try:
        labels = tuple(str(names[str(i)]) for i in range(len(names)))
    except (KeyError, TypeError) as error:
        raise UserError(
            f"{folder / 'config.json'}: id2label must name the labels 0 to {len(names) - 1}; it has no {error}."
        ) from error
    try:
        head = Head.of_problem(config.get("problem_type"), labels)
    except KeyError as error:
        raise UserError(f"{folder / 'config.json'}: problem_type {error} is not known.") from error
    if len(set(labels)) < len(labels) or (head.kind == "labels" and not head.names):
        raise UserError(
            f"{folder / 'config.json'} does not name the labels: write a name for each of the model's outputs into id2label, "
            "all different."
        )
    return head


def _max_length(config: dict[str, Any], tokenizer: dict[str, Any], folder: Path) -> int:
    limit, positions = tokenizer.get("model_max_length"), config.get("max_position_embeddings")
    if not isinstance(limit, int | float) or not 0 < limit < UNKNOWN:
        raise UserError(
            f"{folder / 'tokenizer_config.json'} does not say how many tokens a text may have: write model_max_length into it"
            f"{f' (config.json has {positions} positions)' if positions else ''}."
        )
    return min(int(limit), positions or UNKNOWN)


def _pad_id(config: dict[str, Any], tokenizer: dict[str, Any], folder: Path) -> int:
    if isinstance(config.get("pad_token_id"), int):
        return config["pad_token_id"]
    token = tokenizer.get("pad_token")
    name = token.get("content") if isinstance(token, dict) else token
    tokens = _json(folder / "tokenizer.json").get("added_tokens") or []
    ids = [entry["id"] for entry in tokens if entry.get("content") == name]
    if not ids:
        raise UserError(f"{folder} does not say what texts are padded with: write pad_token_id into config.json.")
    return ids[0]


def _inputs(backend: str, file: Path) -> tuple[str, ...]:
    takes, gives = _ports(import_backend(backend), backend, file)
    if "logits" not in gives or not set(takes) <= set(INPUTS):
        raise UserError(
            f"{file} takes {takes} and gives {gives}; a classifier takes some of {list(INPUTS)} and gives logits."
        )
    return tuple(takes)


def _ports(package: Any, backend: str, file: Path) -> tuple[list[str], list[str]]:
    """The names of the model's inputs and outputs."""
    try:
        if backend == "onnxruntime":
            model = package.InferenceSession(str(file), providers=["CPUExecutionProvider"])
            return [port.name for port in model.get_inputs()], [port.name for port in model.get_outputs()]
        with keep_signal_stack():
            model = package.Core().read_model(file)
        return [port.get_any_name() for port in model.inputs], [port.get_any_name() for port in model.outputs]
    except Exception as error:  # each backend has its own exceptions
        raise UserError(f"{backend} {package.__version__} cannot read {file}: {error}") from error


def _scales_activations_at_run_time(file: Path) -> bool:
    """Whether the model has ONNX's DynamicQuantizeLinear, which scales over the whole batch. OpenVINO has no such operation."""
    return file.suffix == ".onnx" and b"DynamicQuantize" in file.read_bytes()
