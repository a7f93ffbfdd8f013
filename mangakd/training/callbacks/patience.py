"""Ends a fit whose score no longer improves."""

import lightning as L
from lightning.pytorch.callbacks import EarlyStopping


class Patience(EarlyStopping):
    """Lightning's, that keeps a fit ended: resumed, as when a later stage was killed, it would train for one epoch more."""

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        trainer.should_stop = trainer.should_stop or self.wait_count >= self.patience
