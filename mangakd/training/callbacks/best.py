"""Saves the best validation epoch. Of equal epochs the later wins: it has trained longer, at a smaller learning rate.

Lightning saves the first of equal epochs. On a few hundred validation rows ties are common, and the first may be an epoch at
the very start of training.
"""

from pathlib import Path
from typing import Any, Literal

import lightning as L
from lightning.pytorch.callbacks import ModelCheckpoint
from torch import Tensor


class Best(ModelCheckpoint):
    """folder: for best.ckpt, weights only. monitor: a logged score. mode: whether its largest or its smallest value is best.

    newest: the monitor's value after the newest epoch; None before the first.
    """

    newest: Tensor | None = None

    def __init__(self, folder: Path, monitor: str, mode: Literal["max", "min"]) -> None:
        super().__init__(
            folder, "best", monitor=monitor, mode=mode, save_weights_only=True, enable_version_counter=False
        )

    def check_monitor_top_k(self, trainer: L.Trainer, current: Tensor | None = None) -> bool:
        self.newest = current
        if current is None or self.best_model_score is None:
            return super().check_monitor_top_k(trainer, current)
        before = self.best_model_score.to(current.device)
        as_good = current >= before if self.mode == "max" else current <= before
        return trainer.strategy.reduce_boolean_decision(bool(as_good))

    def state_dict(self) -> dict[str, Any]:
        return {**super().state_dict(), "newest": self.newest}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        super().load_state_dict(state_dict)
        self.newest = state_dict.get("newest")  # checkpoints of before lack it
