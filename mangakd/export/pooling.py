"""Pooling: turns the outputs of an encoder without a classification head into one vector a text, then normalises.

sentence-transformers writes the settings to the folder: modules.json lists the modules after the encoder, and
1_Pooling/config.json has the pooling. Without these files the default is the mean over real tokens, normalised, the most common
setting.
"""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from mangakd.core.errors import UserError

POOLINGS = ("mean", "cls", "max")


@dataclass(frozen=True)
class Pooling:
    """pooling: mean over real tokens, first token (cls), or maximum over real tokens. normalize: to length 1."""

    pooling: str = "mean"
    normalize: bool = True

    def __post_init__(self) -> None:
        if self.pooling not in POOLINGS:
            raise UserError(f"pooling {self.pooling!r} cannot be exported; known: {', '.join(POOLINGS)}.")

    def __call__(self, hidden: Tensor, mask: Tensor) -> Tensor:
        """hidden: (B, T, D). mask: (B, T), 0 for padding. → (B, D)."""
        real = mask.unsqueeze(-1).to(hidden.dtype)
        if self.pooling == "cls":
            pooled = hidden[:, 0]
        elif self.pooling == "max":
            pooled = hidden.masked_fill(real == 0, torch.finfo(hidden.dtype).min).amax(1)
        else:
            pooled = (hidden * real).sum(1) / real.sum(1).clamp(min=1e-9)
        return torch.nn.functional.normalize(pooled, dim=-1) if self.normalize else pooled


def of_folder(folder: Path) -> Pooling:
    """Read the folder's modules.json. Raises UserError for modules that the export does not support, such as Dense."""
    file = folder / "modules.json"
    if not file.is_file():
        return Pooling()
    modules = {entry["type"].rsplit(".", 1)[-1]: entry["path"] for entry in json.loads(file.read_text())}
    others = sorted(set(modules) - {"Transformer", "Pooling", "Normalize"})
    if others:
        raise UserError(
            f"{file} lists {', '.join(others)}, which the export does not support; the embeddings would differ. "
            "Known: Transformer, Pooling, Normalize."
        )
    if modules.get("Transformer"):
        raise UserError(f"{file} keeps the encoder in {modules['Transformer']}/; put its files beside modules.json.")
    settings = json.loads((folder / modules["Pooling"] / "config.json").read_text()) if "Pooling" in modules else {}
    return Pooling(_mode(settings, file), "Normalize" in modules)


def _mode(settings: dict[str, Any], file: Path) -> str:
    """The pooling mode. Older folders have one boolean a mode, newer folders one `pooling_mode`."""
    names = {"pooling_mode_cls_token": "cls", "pooling_mode_mean_tokens": "mean", "pooling_mode_max_tokens": "max"}
    modes = [names.get(key, key) for key, on in settings.items() if key.startswith("pooling_mode_") and on is True]
    modes = modes or [settings.get("pooling_mode", "mean")]
    if len(modes) > 1:
        raise UserError(
            f"{file}: several poolings are joined ({', '.join(modes)}); the export supports one of {', '.join(POOLINGS)}."
        )
    return modes[0]
