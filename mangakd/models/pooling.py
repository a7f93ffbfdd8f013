"""Pooling: turns the states of an encoder without a classification head into one vector a text.

    vector = normalize(dense_k(… dense_1(pool(states))))        each part but the pooling is optional

sentence-transformers writes the settings to the folder: modules.json lists the modules after the encoder, 1_Pooling/config.json
has the pooling, 2_Dense the weights of a layer. Without these files the default is the mean over real tokens, normalised, the
most common setting. Padding may be on either side. Arithmetic is in fp32, and states of padding are replaced before it: they may
be NaN.

Shapes: B texts, T tokens, H hidden size, D dimensions of the vector.
"""

import hashlib
import json
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from transformers.utils import cached_file

from mangakd.core.errors import UserError, near

POOLINGS = ("mean", "cls", "max", "last")
MODULES = "modules.json"
_MODES = {"cls_token": "cls", "mean_tokens": "mean", "max_tokens": "max", "lasttoken": "last"}
_KNOWN = ("Transformer", "Pooling", "Dense", "Normalize")


@dataclass(frozen=True)
class Dense:
    """A layer after the pooling. activation: the name of a class of torch.nn. where: the folder with its weights."""

    inputs: int
    outputs: int
    bias: bool = True
    activation: str = "Tanh"
    where: Path | None = None


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
        self.activations = nn.ModuleList(getattr(nn, each.activation)() for each in self.settings.dense)

    def forward(self, states: Tensor, mask: Tensor) -> Tensor:
        vector = pool(self.settings.pooling, states.float(), mask.bool())
        for layer, activation in zip(self.dense, self.activations, strict=True):
            vector = activation(layer(vector.to(layer.weight.dtype)).float())  # type: ignore[arg-type]
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
    counted = mask.long().cumsum(1)
    place = mask & (counted == (1 if pooling == "cls" else counted[:, -1:]))
    return states.masked_fill(~place.unsqueeze(-1), 0.0).sum(1)


def of_folder(where: str | Path) -> Pooling:
    """The pooling of a folder or hub id. Raises UserError for modules that mangakd does not know."""
    file = _file(where, MODULES)
    if file is None:
        return Pooling()
    modules = [(entry["type"].rsplit(".", 1)[-1], entry["path"]) for entry in json.loads(file.read_text())]
    others = sorted({name for name, _ in modules} - set(_KNOWN))
    if others:
        raise UserError(
            f"{file} lists {', '.join(others)}, which mangakd does not know; the vectors would differ. "
            f"Known: {', '.join(_KNOWN)}."
        )
    paths = dict(modules)
    if paths.get("Transformer"):
        raise UserError(f"{file} keeps the encoder in {paths['Transformer']}/; put its files beside modules.json.")
    settings = _settings(where, paths["Pooling"]) if "Pooling" in paths else {}
    dense = tuple(_dense(where, path) for name, path in modules if name == "Dense")
    return Pooling(_mode(settings, file), "Normalize" in paths, dense)


def read_head(where: str | Path) -> VectorHead:
    """The head of a folder or hub id, with the weights of its dense layers."""
    head = VectorHead(of_folder(where))
    for layer, settings in zip(head.dense, head.settings.dense, strict=True):
        weights = load_file(settings.where / "model.safetensors")  # type: ignore[operator]
        layer.load_state_dict({name.removeprefix("linear."): value.float() for name, value in weights.items()})
    return head


def save_head(head: VectorHead, hidden: int, folder: Path) -> None:
    """Write modules.json and the settings of each part beside the Hugging Face files of the encoder.

    hidden: size of the encoder's states.
    """
    settings = head.settings
    parts = ["Pooling", *("Dense" for _ in settings.dense), *(["Normalize"] if settings.normalize else [])]
    names = [f"{number}_{part}" for number, part in enumerate(parts, 1)]
    entries = [("", "Transformer"), *zip(names, parts, strict=True)]
    modules = [
        {"idx": i, "name": str(i), "path": path, "type": f"sentence_transformers.models.{part}"}
        for i, (path, part) in enumerate(entries)
    ]
    _write(folder / MODULES, modules)
    flags = {f"pooling_mode_{name}": mode == settings.pooling for name, mode in _MODES.items()}
    _write(folder / names[0] / "config.json", {"word_embedding_dimension": hidden, **flags})
    for name, each, layer in zip(names[1:], settings.dense, head.dense, strict=False):
        entry = {"in_features": each.inputs, "out_features": each.outputs, "bias": each.bias}
        _write(
            folder / name / "config.json",
            entry | {"activation_function": f"torch.nn.modules.activation.{each.activation}"},
        )
        weights = {f"linear.{key}": value.contiguous() for key, value in layer.state_dict().items()}
        save_file(weights, folder / name / "model.safetensors")


def _write(file: Path, content: Any) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(json.dumps(content, indent=2) + "\n")


def _file(where: str | Path, name: str) -> Path | None:
    if Path(where).is_dir():
        return file if (file := Path(where) / name).is_file() else None
    found = cached_file(str(where), name, _raise_exceptions_for_missing_entries=False) if str(where) else None
    return Path(found) if found else None


def _settings(where: str | Path, path: str) -> dict[str, Any]:
    file = _file(where, f"{path}/config.json")
    return dict(json.loads(file.read_text())) if file else {}


def _dense(where: str | Path, path: str) -> Dense:
    settings, weights = _settings(where, path), _file(where, f"{path}/model.safetensors")
    if weights is None:
        raise UserError(
            f"{where}: {path}/ has no model.safetensors, the weights of its dense layer. Save the model again."
        )
    activation = str(settings.get("activation_function", "torch.nn.modules.activation.Tanh")).rsplit(".", 1)[-1]
    known = [name for name in nn.modules.activation.__all__ if name != "MultiheadAttention"] + ["Identity"]
    if activation not in known:
        raise UserError(
            f"{where}: the dense layer in {path}/ has the activation {activation!r}, which is none of torch.nn"
            f"{near(activation, known)}"
        )
    bias = bool(settings.get("bias", True))
    return Dense(settings["in_features"], settings["out_features"], bias, activation, weights.parent)


def _mode(settings: dict[str, Any], file: Path) -> str:
    """The pooling mode. Older folders have one boolean a mode, newer folders one `pooling_mode`."""
    flags = {key.removeprefix("pooling_mode_"): on for key, on in settings.items() if key.startswith("pooling_mode_")}
    modes = [key for key, on in flags.items() if on is True] or [settings.get("pooling_mode", "mean")]
    modes = [_MODES.get(mode, mode) for mode in modes]
    if len(modes) > 1:
        raise UserError(
            f"{file}: several poolings are joined ({', '.join(modes)}); known is one of {', '.join(POOLINGS)}."
        )
    return modes[0]
