"""Leaves out a side that fails again and again, so that questions do not wait for its timeout.

After `failures` in a row the breaker is open for `seconds`; then one question tries the side, and its success closes the breaker.
Source: M. Nygard, Release It! (2007), "Circuit Breaker".
"""

import time
from collections.abc import Callable

from mangakd.runtime.rollout.settings import BreakerSettings


class Breaker:
    def __init__(self, settings: BreakerSettings, clock: Callable[[], float] = time.monotonic):
        self._settings, self._clock = settings, clock
        self._failures = 0
        self._next = 0.0

    @property
    def open(self) -> bool:
        return self._failures >= self._settings.failures

    def allows(self) -> bool:
        """Whether the side may be asked now. Of an open breaker the first question after `seconds` may, and no other."""
        if not self.open:
            return True
        if self._clock() < self._next:
            return False
        self._next = self._clock() + self._settings.seconds
        return True

    def note(self, failed: bool) -> None:
        self._failures = self._failures + 1 if failed else 0
        if self.open:
            self._next = self._clock() + self._settings.seconds
