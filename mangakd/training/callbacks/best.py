"""Keeps the best validation epoch; of equal ones the later, which has learnt longer and at a smaller rate.

Lightning keeps the first of equals. On a few hundred validation rows ties are common, and the first of them may be an epoch in
which the student had hardly begun.
"""

from pathlib import Path

import lightning as L
from lightning.pytorch.callbacks import ModelCheckpoint
from torch import Tensor


class Best(ModelCheckpoint):
    """folder: gets best.ckpt, weights only. monitor: a score, higher is better."""

    def __init__(self, folder: Path, monitor: str) -> None:
        super().__init__(
            folder, "best", monitor=monitor, mode="max", save_weights_only=True, enable_version_counter=False
        )

    def check_monitor_top_k(self, trainer: L.Trainer, current: Tensor | None = None) -> bool:
        if current is None or self.best_model_score is None:
            return super().check_monitor_top_k(trainer, current)
        return trainer.strategy.reduce_boolean_decision(bool(current >= self.best_model_score.to(current.device)))
