"""Checkpoints between two optimizer steps: every N steps, every N minutes, after each epoch, and on Ctrl-C or SIGTERM.

A signal only sets a flag. Ranks receive the signal at different moments, and only the first rank reads the clock. So an
asynchronous all-reduce, started after one step and read after the next, carries the requests of all ranks. All ranks then save
and stop at the same step, and no step waits. A second Ctrl-C exits at once.

On resume from a checkpoint at an epoch's end, Lightning silently drops the loader's position, and the next epoch would repeat
the first epoch's batches. So this callback restores the loader's position. Do not save after the last step of an epoch: resuming
from that checkpoint would skip the epoch's validation. Save at epoch end instead.
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
    """Steps and minutes between two checkpoints within an epoch; None disables one."""

    every_steps: int | None = None
    every_minutes: float | None = 10.0


class Interrupted(Exception):
    """A signal stopped training; `checkpoint` can be resumed."""

    def __init__(self, number: int, checkpoint: Path) -> None:
        super().__init__(f"stopped by {signal.Signals(number).name}")
        self.number, self.checkpoint = number, checkpoint


class SaveLast(Checkpoint):
    """folder: of last.ckpt. accumulate: micro-batches of a step. together: whether several ranks train. loader: of the fit.

    The class is a Checkpoint, because Lightning runs Checkpoints last, in order. So last.ckpt holds the state of `Best` and
    `Patience` after the epoch's validation.
    """

    def __init__(self, folder: Path, when: SaveEvery, accumulate: int, together: bool, loader: TrainLoader) -> None:
        self._checkpoint = folder / LAST
        self._when, self._accumulate, self._together, self._loader = when, accumulate, together, loader
        self._received = 0
        self._stop = 0
        self._saved_at = time.monotonic()
        self._previous: dict[int, Any] = {}
        self._exchange: tuple[torch.Tensor, Any] | None = None

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
            return  # a checkpoint does not hold the gradients of half a step
        stop, due = self._agree()
        self._stop = self._stop or stop
        if trainer.is_last_batch:
            return  # the epoch's end saves and stops
        due_by_steps = self._when.every_steps is not None and trainer.global_step % self._when.every_steps == 0
        if self._stop or due or due_by_steps:
            self._save(trainer)

    def on_train_epoch_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        self._save(trainer)

    def _save(self, trainer: L.Trainer) -> None:
        for logger in trainer.loggers:  # a resumed run continues its curve from this step
            logger.save()
        trainer.save_checkpoint(self._checkpoint)
        self._saved_at = time.monotonic()
        if self._stop:
            raise Interrupted(self._stop, self._checkpoint)

    def _agree(self) -> tuple[int, int]:
        """(signal number or 0, whether the minutes are over): of this rank, or of all ranks one step ago."""
        minutes = self._when.every_minutes
        due = int(minutes is not None and time.monotonic() - self._saved_at >= 60 * minutes)
        if not self._together:
            return self._received, due
        answer = (0, 0)
        if self._exchange is not None:
            request, work = self._exchange
            work.wait()
            answer = (int(request[0]), int(request[1]))
        request = torch.tensor([self._received, due if ranks.is_first() and not answer[1] else 0])
        self._exchange = request, dist.all_reduce(request, dist.ReduceOp.MAX, ranks.control(), async_op=True)
        return answer

    def on_train_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        if self._exchange is not None:
            self._exchange[1].wait()
        self._put_back()

    def on_exception(self, trainer: L.Trainer, pl_module: L.LightningModule, exception: BaseException) -> None:
        self._put_back()

    def _put_back(self) -> None:
        self._exchange = None
        for number, handler in self._previous.items():
            signal.signal(number, handler)
        self._previous = {}
