"""How an encoder without a classification head answers with one vector a text: pooling, then L2 norm.

sentence-transformers writes both into the folder: modules.json lists what follows the encoder, 1_Pooling/config.json says
how it pools. A folder without them is pooled by the mean over real tokens and normalised, which is what most of them do.
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
    """What the folder's modules.json says. Raises UserError for modules that are not exported, such as Dense."""
    file = folder / "modules.json"
    if not file.is_file():
        return Pooling()
    modules = {entry["type"].rsplit(".", 1)[-1]: entry["path"] for entry in json.loads(file.read_text())}
    others = sorted(set(modules) - {"Transformer", "Pooling", "Normalize"})
    if others:
        raise UserError(
            f"{file} lists {', '.join(others)}, which the export does not know; its embeddings would be others. "
            "Known: Transformer, Pooling, Normalize."
        )
    if modules.get("Transformer"):
        raise UserError(f"{file} keeps the encoder in {modules['Transformer']}/; put its files beside modules.json.")
    settings = json.loads((folder / modules["Pooling"] / "config.json").read_text()) if "Pooling" in modules else {}
    return Pooling(_mode(settings, file), "Normalize" in modules)


def _mode(settings: dict[str, Any], file: Path) -> str:
    """Older folders have a switch for each mode, newer ones one `pooling_mode`."""
    names = {"pooling_mode_cls_token": "cls", "pooling_mode_mean_tokens": "mean", "pooling_mode_max_tokens": "max"}
    chosen = [names.get(key, key) for key, on in settings.items() if key.startswith("pooling_mode_") and on is True]
    chosen = chosen or [settings.get("pooling_mode", "mean")]
    if len(chosen) > 1:
        raise UserError(
            f"{file}: several poolings are joined ({', '.join(chosen)}); one of {', '.join(POOLINGS)} is known."
        )
    return chosen[0]
