"""Ctrl-C and SIGTERM: finish the step, write checkpoints/last.ckpt, leave. A second Ctrl-C leaves at once."""

import signal
from pathlib import Path
from types import FrameType
from typing import Any

import lightning as L


class Interrupted(Exception):
    """Training stopped by a signal; `checkpoint` is where it can go on."""

    def __init__(self, number: int, checkpoint: Path) -> None:
        super().__init__(f"stopped by {signal.Signals(number).name}")
        self.number, self.checkpoint = number, checkpoint


class SaveOnSignal(L.Callback):
    """A signal only raises a flag; the checkpoint is written between two steps, where the state is whole."""

    def __init__(self, checkpoint: Path) -> None:
        self._checkpoint = checkpoint
        self._received: int | None = None
        self._previous: dict[int, Any] = {}

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        for number in (signal.SIGINT, signal.SIGTERM):
            self._previous[number] = signal.signal(number, self._note)

    def _note(self, number: int, frame: FrameType | None) -> None:
        if self._received is not None:
            raise KeyboardInterrupt
        self._received = number
        print("\nstopping: finishing this step and writing a checkpoint (again to leave at once) …", flush=True)

    def on_train_batch_end(self, trainer: L.Trainer, *_: Any) -> None:
        if self._received is not None:
            trainer.save_checkpoint(self._checkpoint)
            raise Interrupted(self._received, self._checkpoint)

    def teardown(self, trainer: L.Trainer, pl_module: L.LightningModule, stage: str) -> None:
        for number, handler in self._previous.items():
            signal.signal(number, handler)
        self._previous = {}
