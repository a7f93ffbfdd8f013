"""`lazy`: a property that is computed once, or fails once."""

from functools import cached_property
from typing import Any, TypeVar

T = TypeVar("T")


class lazy(cached_property[T]):
    """Computed when it is first read. A failure is raised again at each later read, so that no check waits a second time for
    a hub that cannot be reached."""

    def __get__(self, instance: Any, owner: Any = None) -> T:  # type: ignore[override]
        if instance is None:
            return self  # type: ignore[return-value]
        failures = instance.__dict__.setdefault("failures", {})
        if self.attrname in failures:
            raise failures[self.attrname]
        try:
            return super().__get__(instance, owner)
        except Exception as error:
            failures[self.attrname] = error
            raise
