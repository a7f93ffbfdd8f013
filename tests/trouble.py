"""Hard labels, with trouble at one step of one rank: what the commands under test train with.

TROUBLE=<rank>:<step of this process>:<CTRL-C | KILL | STOP | RAISE>, or not set. CTRL-C: this process gets SIGINT. KILL: it is
gone at once. STOP: its parent gets SIGTERM, as from a scheduler. RAISE: an error that only this rank has.
"""

import os
import signal
import threading
from typing import Any

from mangakd.core import ranks
from mangakd.core.outputs import Batch, Outputs
from mangakd.losses.base import LossOutput
from mangakd.losses.hard_label import HardLabelLoss

SENT = {"CTRL-C": signal.SIGINT, "KILL": signal.SIGKILL}


class Trouble(HardLabelLoss):
    def __init__(self, *, weight: Any = 1.0, label_smoothing: float = 0.0, smoothing_aware: bool = False) -> None:
        super().__init__(weight=weight, label_smoothing=label_smoothing, smoothing_aware=smoothing_aware)
        rank, step, self._kind = os.environ.get("TROUBLE", "0:0:").split(":")
        self._rank, self._left = int(rank), int(step)

    def forward(self, student: Outputs, teacher: Outputs | None, batch: Batch) -> LossOutput:
        self._left -= 1
        if self._left == 0 and ranks.rank() == self._rank:
            self._happen()
        return super().forward(student, teacher, batch)

    def _happen(self) -> None:
        if self._kind in SENT:
            os.kill(os.getpid(), SENT[self._kind])
        elif self._kind == "STOP":
            _stop_parent()
        else:
            raise ValueError("only this rank's trouble")


def _stop_parent() -> None:
    """SIGTERM to the parent, and wait until it comes back from there."""
    received, handler = threading.Event(), signal.getsignal(signal.SIGTERM)

    def handle(number: int, frame: Any) -> None:
        received.set()
        handler(number, frame)  # type: ignore[operator]

    signal.signal(signal.SIGTERM, handle)
    os.kill(os.getppid(), signal.SIGTERM)
    assert received.wait(60)
