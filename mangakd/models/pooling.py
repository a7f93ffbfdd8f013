"""Pooling: turns the states of an encoder without a classification head into one vector a text.

    vector = normalize(dense_k(… dense_1(pool(states))))        each part but the pooling is optional

sentence-transformers writes the settings to the folder: modules.json lists the modules after the encoder, 1_Pooling/config.json
has the pooling, 2_Dense the weights of a layer. Without these files the default is the mean over real tokens, normalised, the
most common setting. Padding may be on either side. Arithmetic is in fp32, and states of padding are replaced before it: they may
be NaN.

Shapes: B texts, T tokens, H hidden size, D dimensions of the vector.
"""

import hashlib
import pickle
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from mangakd.core.errors import UserError
from mangakd.models.activations import activation, activation_call
from mangakd.models.folder import model_file, read_json, read_object, write_json
from mangakd.models.sentence_transformers import MODULES, read_settings

POOLINGS = ("mean", "cls", "max", "last")
PYLATE = "pylate."  # begins the types of modules that read each token (models/late.py)
POOLED = "sentence_embedding"  # how sentence-transformers calls a vector between two modules
_MODES = {"cls_token": "cls", "mean_tokens": "mean", "max_tokens": "max", "lasttoken": "last"}
_KNOWN = ("Transformer", "Pooling", "Dense", "Normalize")


@dataclass(frozen=True)
class Dense:
    """A layer after the pooling. where: the folder with its weights.

    activation: a class of torch.nn by its name, or a call of it (models/activations.py). Raises UserError for another one.
    """

    inputs: int
    outputs: int
    bias: bool = True
    activation: str = "Tanh"
    where: Path | None = None

    def __post_init__(self) -> None:
        # One spelling, so that equal layers are equal and have one digest.
        call = activation_call(activation(self.activation, self.where or "dense"))
        object.__setattr__(self, "activation", call)


@dataclass(frozen=True)
class Pooling:
    """pooling: mean over real tokens, maximum over them, first (cls) or last real token. normalize: to length 1.

    dense: layers between the two. Raises UserError for an unknown pooling.
    """

    pooling: str = "mean"
    normalize: bool = True
    dense: tuple[Dense, ...] = ()

    def __post_init__(self) -> None:
        if self.pooling not in POOLINGS:
            raise UserError(f"there is no pooling {self.pooling!r}; known: {', '.join(POOLINGS)}.")

    def width(self, hidden: int) -> int:
        """D, for an encoder of this hidden size."""
        return self.dense[-1].outputs if self.dense else hidden


class VectorHead(nn.Module):
    """States (B, T, H) and mask (B, T), 0 for padding → vectors (B, D) in fp32. Only its dense layers have weights."""

    def __init__(self, pooling: Pooling | None = None) -> None:
        super().__init__()
        self.settings = pooling or Pooling()
        self.dense = nn.ModuleList(nn.Linear(each.inputs, each.outputs, each.bias) for each in self.settings.dense)
        self.activations = nn.ModuleList(activation(each.activation, each.where) for each in self.settings.dense)

    def forward(self, states: Tensor, mask: Tensor) -> Tensor:
        vector = pool(self.settings.pooling, states.float(), mask.bool())
        for layer, activate in zip(self.dense, self.activations, strict=True):
            vector = activate(layer(vector.to(layer.weight.dtype)).float())  # type: ignore[arg-type]
        return nn.functional.normalize(vector, dim=-1) if self.settings.normalize else vector

    def digest(self, weights: str) -> str:
        """The digest of an encoder's weights, with the pooling that its vectors also depend on."""
        own = [replace(each, where=None) for each in self.settings.dense]
        digest = hashlib.sha256(f"{weights}{self.settings.pooling}{self.settings.normalize}{own}".encode())
        for name, value in sorted(self.dense.state_dict().items()):
            digest.update(name.encode() + value.detach().cpu().float().contiguous().numpy().tobytes())
        return digest.hexdigest()[:16]


def pool(pooling: str, states: Tensor, mask: Tensor) -> Tensor:
    """(B, T, H) and mask (B, T) bool → (B, H)."""
    if pooling == "max":
        return states.masked_fill(~mask.unsqueeze(-1), torch.finfo(states.dtype).min).amax(1)
    if pooling == "mean":
        total = states.masked_fill(~mask.unsqueeze(-1), 0.0).sum(1)
        return total / mask.sum(1, keepdim=True).clamp(min=1).to(states.dtype)
    # One place a row, found without indexing: exporters trace it for any number of tokens and either side of padding.
    counts = mask.long().cumsum(1)
    place = mask & (counts == (1 if pooling == "cls" else counts[:, -1:]))
    return states.masked_fill(~place.unsqueeze(-1), 0.0).sum(1)


def of_folder(where: str | Path) -> Pooling:
    """The pooling of a folder or hub id. Raises UserError for modules, or an order of modules, that mangakd does not know."""
    file = model_file(where, MODULES)
    if file is None:
        return Pooling()
    try:
        modules = [(str(entry["type"]).rpartition(".")[2], str(entry["path"])) for entry in read_json(file)]
    except (TypeError, KeyError) as error:
        raise UserError(f"{file} must be a list of modules, each with `type` and `path`.") from error
    names, paths = [name for name, _ in modules], dict(modules)
    if any(str(entry["type"]).startswith(PYLATE) for entry in read_json(file)):
        raise UserError(
            f"{file} lists modules of PyLate: the model makes a vector for each token, not one of a text. task=rerank reads it."
        )
    if others := sorted(set(names) - set(_KNOWN)):
        raise UserError(
            f"{file} lists {', '.join(others)}, which mangakd does not know; the vectors would differ. "
            f"Known: {', '.join(_KNOWN)}."
        )
    once = [name for name in names if name != "Dense"]
    if names != sorted(names, key=_KNOWN.index) or len(set(once)) < len(once) or names[:1] != ["Transformer"]:
        raise UserError(
            f"{file} lists {', '.join(names)}; known is the order {', '.join(_KNOWN)}, with any number of Dense."
        )
    if paths["Transformer"]:
        raise UserError(f"{file} keeps the encoder in {paths['Transformer']}/; put its files beside modules.json.")
    settings = read_object(where, f"{paths['Pooling']}/config.json") if "Pooling" in paths else {}
    if settings.get("include_prompt") is False and any(read_settings(where).prompts.values()):
        raise UserError(f"{file}: its pooling leaves the prompt out (include_prompt=false), which mangakd does not.")
    dense = tuple(dense_of(where, path) for name, path in modules if name == "Dense")
    return Pooling(_mode(settings, file), "Normalize" in paths, dense)


def read_head(where: str | Path) -> VectorHead:
    """The head of a folder or hub id, with the weights of its dense layers. Raises UserError for weights of another shape."""
    head = VectorHead(of_folder(where))
    for layer, settings in zip(head.dense, head.settings.dense, strict=True):
        read_dense(layer, settings)
    return head


def read_dense(layer: nn.Module, settings: Dense) -> None:
    """Give a linear layer the weights in the folder of its settings. Raises UserError for weights of another shape."""
    assert settings.where is not None
    try:
        weights = _weights(settings.where)
        layer.load_state_dict({name.removeprefix("linear."): value.float() for name, value in weights.items()})
    except (RuntimeError, SafetensorError, pickle.UnpicklingError) as error:
        reason = " ".join(str(error).split())
        raise UserError(f"{settings.where} holds no weights of {layer}: {reason} Save the model again.") from error


def _weights(folder: Path) -> dict[str, Tensor]:
    file = folder / "model.safetensors"
    if file.is_file():
        return load_file(file)
    return torch.load(folder / "pytorch_model.bin", map_location="cpu", weights_only=True)  # type: ignore[no-any-return]


def save_head(head: VectorHead, hidden: int, folder: Path) -> None:
    """Write modules.json and the settings of each part beside the Hugging Face files of the encoder.

    hidden: size of the encoder's states.
    """
    settings = head.settings
    parts = ["Pooling", *("Dense" for _ in settings.dense), *(["Normalize"] if settings.normalize else [])]
    names = [f"{number}_{part}" for number, part in enumerate(parts, 1)]
    write_modules(
        {name: f"sentence_transformers.models.{part}" for name, part in zip(names, parts, strict=True)}, folder
    )
    flags = {f"pooling_mode_{name}": mode == settings.pooling for name, mode in _MODES.items()}
    write_json(folder / names[0] / "config.json", {"word_embedding_dimension": hidden, **flags})
    for name, each, layer in zip(names[1:], settings.dense, head.dense, strict=False):
        save_dense(layer, each, folder / name)
    if settings.normalize:
        (folder / names[-1]).mkdir(exist_ok=True)


def write_modules(parts: Mapping[str, str], folder: Path) -> None:
    """modules.json of an encoder and what follows it. parts: folder → class."""
    modules = {"": "sentence_transformers.models.Transformer", **parts}
    entries = enumerate(modules.items())
    write_json(
        folder / MODULES, [{"idx": i, "name": str(i), "path": path, "type": kind} for i, (path, kind) in entries]
    )


def save_dense(layer: nn.Module, settings: Dense, folder: Path) -> None:
    """Write a linear layer with its settings."""
    entry = {"in_features": settings.inputs, "out_features": settings.outputs, "bias": settings.bias}
    write_json(folder / "config.json", entry | {"activation_function": settings.activation})
    weights = {f"linear.{key}": value.cpu().contiguous() for key, value in layer.state_dict().items()}
    save_file(weights, folder / "model.safetensors")


def dense_of(where: str | Path, path: str, port: str = POOLED) -> Dense:
    """The layer in the subfolder `path` of a folder or hub id. port: what it must read and write.

    Raises UserError for another port, a residual, and for missing sizes or weights.
    """
    settings = read_object(where, f"{path}/config.json")
    files = [model_file(where, f"{path}/{name}") for name in ("model.safetensors", "pytorch_model.bin")]
    weights = next(filter(None, files), None)
    if weights is None:
        raise UserError(
            f"{where}: {path}/ has no model.safetensors, the weights of its dense layer. Save the model again."
        )
    ports = {settings.get(key) or port for key in ("module_input_name", "module_output_name")}
    if ports != {port} or settings.get("use_residual"):
        what = "the pooled vector" if port == POOLED else "the vector of each token"
        raise UserError(
            f"{where}: the dense layer in {path}/ has a residual or reads something else than {what} "
            f"({', '.join(sorted(ports))}), which mangakd does not know."
        )
    call = str(settings.get("activation_function", "torch.nn.modules.activation.Tanh"))
    try:
        sizes = int(settings["in_features"]), int(settings["out_features"])
    except (KeyError, TypeError, ValueError) as error:
        raise UserError(
            f"{where}: {path}/config.json must give in_features and out_features as whole numbers."
        ) from error
    return Dense(*sizes, bool(settings.get("bias", True)), call, weights.parent)


def _mode(settings: dict[str, Any], file: Path) -> str:
    """The pooling mode. Older folders have one boolean a mode, newer folders one `pooling_mode`."""
    flags = {key.removeprefix("pooling_mode_"): on for key, on in settings.items() if key.startswith("pooling_mode_")}
    new = settings.get("pooling_mode", "mean")  # one mode, or a list of those that are joined
    modes = [key for key, on in flags.items() if on is True] or (list(new) if isinstance(new, list) else [str(new)])
    modes = [_MODES.get(mode, mode) for mode in modes]
    if len(modes) > 1:
        raise UserError(
            f"{file}: several poolings are joined ({', '.join(modes)}); known is one of {', '.join(POOLINGS)}."
        )
    return modes[0]
