"""`SequenceTexts`: the texts behind a split's sequences, for teachers whose answers are looked up by text."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass

from mangakd.data.rows import Rows, identity

Texts = tuple[str, ...]
"""Of one sequence: a text, or a pair of texts."""


@dataclass(frozen=True)
class SequenceTexts:
    """rows: of the split, for messages. read: the rows → for each row its sequences (`Task.sequences`)."""

    rows: Rows
    read: Callable[[Rows], Iterable[Sequence[Texts]]]

    def __iter__(self) -> Iterator[tuple[int, Texts]]:
        """(position of the row, texts) of each sequence, in the order of the encoded split."""
        return ((i, texts) for i, sequences in enumerate(self.read(self.rows)) for texts in sequences)


def identities_of(texts: Texts) -> Texts:
    """Equal for sequences whose texts differ in blanks or in the composition of characters alone."""
    return tuple(map(identity, texts))
