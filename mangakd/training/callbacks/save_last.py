"""Checkpoints between two optimizer steps: every N steps, every N minutes, after each epoch, and on Ctrl-C or SIGTERM.

A signal only raises a flag. Ranks see it at different moments, and only the first one looks at the clock, so what each wants
travels in a small exchange that is begun after one step and read after the next: all of them then save and stop at the same
step, and no step waits for it. A second Ctrl-C leaves at once.

When a checkpoint was written after an epoch, Lightning drops the loader's position in it, without a word, and the next epoch
would take the first one's batches again. So the loader gets its position here. One that was written after an epoch's last step
goes on without that epoch's validation: so the last step has none, the epoch's end has.
"""

import signal
import time
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import Any

import lightning as L
import torch
import torch.distributed as dist
from lightning.pytorch.callbacks import Checkpoint

from mangakd.core import ranks
from mangakd.data.loader import TrainLoader
from mangakd.training.checkpoints import LAST

SIGNALS = (signal.SIGINT, signal.SIGTERM)


@dataclass(frozen=True)
class SaveEvery:
    """Steps and minutes between two checkpoints within an epoch; None never."""

    every_steps: int | None = None
    every_minutes: float | None = 10.0


class Interrupted(Exception):
    """Training stopped by a signal; `checkpoint` is where it can go on."""

    def __init__(self, number: int, checkpoint: Path) -> None:
        super().__init__(f"stopped by {signal.Signals(number).name}")
        self.number, self.checkpoint = number, checkpoint


class SaveLast(Checkpoint):
    """folder: where last.ckpt goes. accumulate: micro-batches of a step. together: whether other ranks train with this one.

    loader: what the fit trains on. A Checkpoint and no plain callback, so that it comes after those that keep the best epoch:
    what last.ckpt holds of them must know of the epoch that it was written after.
    """

    def __init__(self, folder: Path, when: SaveEvery, accumulate: int, together: bool, loader: TrainLoader) -> None:
        self._checkpoint = folder / LAST
        self._when, self._accumulate, self._together, self._loader = when, accumulate, together, loader
        self._received = 0
        self._stop = 0
        self._saved_at = time.monotonic()
        self._previous: dict[int, Any] = {}
        self._asked: tuple[torch.Tensor, Any] | None = None

    def on_load_checkpoint(self, trainer: L.Trainer, pl_module: L.LightningModule, checkpoint: dict[str, Any]) -> None:
        self._loader.load_state_dict(checkpoint["loops"]["fit_loop"]["state_dict"]["combined_loader"][0])

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        self._saved_at = time.monotonic()
        for number in SIGNALS:
            self._previous[number] = signal.signal(number, self._note)

    def _note(self, number: int, frame: FrameType | None) -> None:
        if self._received == number == signal.SIGINT:
            raise SystemExit(128 + number)
        if not self._received and ranks.is_first():
            print("\nstopping: finishing this step and writing a checkpoint (Ctrl-C again: at once) …", flush=True)
        self._received = self._received or number

    def on_train_batch_end(
        self, trainer: L.Trainer, pl_module: L.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        if (batch_idx + 1) % self._accumulate and not trainer.is_last_batch:
            return  # gradients of half a step are in no checkpoint
        stop, due = self._agreed()
        self._stop = self._stop or stop
        if trainer.is_last_batch:
            return  # the epoch's end saves and stops
        counted = self._when.every_steps is not None and trainer.global_step % self._when.every_steps == 0
        if self._stop or due or counted:
            self._save(trainer)

    def on_train_epoch_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        self._save(trainer)

    def _save(self, trainer: L.Trainer) -> None:
        for logger in trainer.loggers:  # a resumed run takes its curve up from here
            logger.save()
        trainer.save_checkpoint(self._checkpoint)
        self._saved_at = time.monotonic()
        if self._stop:
            raise Interrupted(self._stop, self._checkpoint)

    def _agreed(self) -> tuple[int, int]:
        """(signal number or 0, whether the minutes are over): this rank's own, or what all of them wanted a step ago."""
        minutes = self._when.every_minutes
        due = int(minutes is not None and time.monotonic() - self._saved_at >= 60 * minutes)
        if not self._together:
            return self._received, due
        answer = (0, 0)
        if self._asked is not None:
            wanted, work = self._asked
            work.wait()
            answer = (int(wanted[0]), int(wanted[1]))
        wanted = torch.tensor([self._received, due if ranks.is_first() and not answer[1] else 0])
        self._asked = wanted, dist.all_reduce(wanted, dist.ReduceOp.MAX, ranks.control(), async_op=True)
        return answer

    def on_train_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        if self._asked is not None:
            self._asked[1].wait()
        self._put_back()

    def on_exception(self, trainer: L.Trainer, pl_module: L.LightningModule, exception: BaseException) -> None:
        self._put_back()

    def _put_back(self) -> None:
        self._asked = None
        for number, handler in self._previous.items():
            signal.signal(number, handler)
        self._previous = {}
