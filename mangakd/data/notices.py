"""Warnings about rows of a file: one line for each kind, with a count and the first example."""

import logging

log = logging.getLogger(__name__)
_LENGTH = 60


class Notices:
    """origin: the file as the user named it. unit: what its rows are counted by, such as `line`."""

    def __init__(self, origin: str, unit: str) -> None:
        self._origin, self._unit = origin, unit
        self._kinds: dict[str, list[tuple[int, str]]] = {}

    def add(self, kind: str, number: int, value: str) -> None:
        """kind: a plural noun and what was done with it, such as `texts with …, read as …`."""
        self._kinds.setdefault(kind, []).append((number, value))

    def log(self) -> None:
        for kind, cases in self._kinds.items():
            number, value = cases[0]
            log.warning(
                "%s: %s: %d; first: %s %d, %s", self._origin, kind, len(cases), self._unit, number, short(value)
            )


def short(value: object) -> str:
    """Quoted, escaped, and cut to a length that fits a line."""
    text = str(value)
    return repr(text if len(text) <= _LENGTH else text[: _LENGTH - 1] + "…")
