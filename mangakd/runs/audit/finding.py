"""`Finding`: one thing of an audit, what was found of it, and what it was made from."""

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from enum import StrEnum

SHOWN = 5  # lines in a message


class State(StrEnum):
    """note: said and not verified, such as the date of a run."""

    VERIFIED = "verified"
    CHANGED = "changed"
    MISSING = "missing"
    UNRECORDED = "not recorded"
    NOTE = ""


@dataclass(frozen=True)
class Finding:
    """name: of a file or a fact. words: what was found. parts: what it consists of or was made from."""

    name: str
    state: State = State.NOTE
    words: str = ""
    parts: tuple["Finding", ...] = ()

    def all(self) -> Iterator["Finding"]:
        yield self
        for part in self.parts:
            yield from part.all()

    def count(self, state: State) -> int:
        return sum(each.state == state for each in self.all())

    @property
    def exit_code(self) -> int:
        """0: all is verified. 1: something changed. 2: nothing changed, and something is missing or was not recorded."""
        states = Counter(each.state for each in self.all())
        return 1 if states[State.CHANGED] else 2 if states[State.MISSING] + states[State.UNRECORDED] else 0


def group(name: str, parts: Sequence[Finding], words: str = "") -> Finding:
    """Files as one finding. Those that are verified are counted; the others are listed."""
    if parts and all(part.state is State.MISSING for part in parts):
        return Finding(
            name, State.MISSING, "; ".join(filter(None, (words, f"none of its {len(parts)} files is there")))
        )
    wrong = tuple(part for part in parts if part.state is not State.VERIFIED or part.parts)
    verified = sum(part.state is State.VERIFIED for part in parts)
    count = (
        f"{verified} of {len(parts)} files verified" if wrong else f"{len(parts)} file{'s' if len(parts) > 1 else ''}"
    )
    state = State.VERIFIED if parts and not wrong else State.NOTE
    return Finding(name, state, "; ".join(filter(None, (words, count))), wrong)


def lines(numbers: Sequence[int]) -> str:
    """Of a file: the first SHOWN, and how many more."""
    first = ", ".join(map(str, numbers[:SHOWN]))
    more = f" and {len(numbers) - SHOWN} more" if len(numbers) > SHOWN else ""
    return f"line{'s' if len(numbers) > 1 else ''} {first}{more}"
