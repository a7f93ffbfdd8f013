"""How the turns of a conversation become the source that a student reads, in training and where it is served."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

TURNS = "{turns}"


@dataclass(frozen=True)
class Turns:
    """separator: between turns. template: of the whole source, with {turns} in it."""

    separator: str = " ||| "
    template: str = TURNS

    @classmethod
    def read(cls, entry: Mapping[str, Any]) -> "Turns":
        """From the manifest. Raises TypeError or ValueError for what is none."""
        if (
            not all(isinstance(value, str) for value in entry.values())
            or entry.get("template", TURNS).count(TURNS) != 1
        ):
            raise ValueError(f"{entry} does not say how turns are joined")
        return cls(**entry)

    def entry(self) -> dict[str, str]:
        """For the manifest."""
        return asdict(self)

    def text(self, turns: Sequence[str]) -> str:
        """Blank turns are left out."""
        return self.template.replace(TURNS, self.separator.join(turn for turn in turns if turn.strip()))

    def newest(self, turns: Sequence[str], fits: Callable[[str], bool]) -> str:
        """The text of as many turns as fit: the oldest go first, and the last turn stays even if it is too long."""
        there = [turn for turn in turns if turn.strip()] or [""]
        texts = (self.text(there[first:]) for first in range(len(there)))
        return next((text for text in texts if fits(text)), self.text(there[-1:]))
