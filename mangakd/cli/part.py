"""`part`: a property of `Setup` that is made once, or failed once."""

from functools import cached_property
from typing import Any, TypeVar

T = TypeVar("T")


class part(cached_property[T]):
    """Made once, or failed once: a hub that cannot be reached is not waited for again by every check that needs it."""

    def __get__(self, setup: Any, owner: Any = None) -> T:  # type: ignore[override]
        failures = setup.__dict__.setdefault("failures", {})
        if self.attrname in failures:
            raise failures[self.attrname]
        try:
            return super().__get__(setup, owner)
        except Exception as error:
            failures[self.attrname] = error
            raise
