"""`Rows`: the texts and labels of a split, each row with its place in the file it came from."""

import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass, field, replace

from mangakd.data.notices import Notices
from mangakd.runtime.tokenise import whole


@dataclass(frozen=True)
class Rows:
    """One split. labels: a tuple of names for each text (one name, or any number for multi-label tasks).

    numbers: each row's place in its file, from 1, for messages. unit: what they count: `line` where the file has lines (a CSV's
    header is line 1), else `row`.
    """

    texts: list[str]
    labels: list[tuple[str, ...]]
    numbers: list[int] = field(default_factory=list)
    origin: str = ""
    unit: str = "row"

    def __len__(self) -> int:
        return len(self.texts)

    def take(self, positions: Sequence[int]) -> "Rows":
        numbers = [self.numbers[i] for i in positions] if self.numbers else []
        texts, labels = [self.texts[i] for i in positions], [self.labels[i] for i in positions]
        return replace(self, texts=texts, labels=labels, numbers=numbers)

    def place(self, i: int) -> str:
        """Such as `line 38`."""
        return f"{self.unit} {self.numbers[i] if self.numbers else i + 1}"

    def where(self, i: int) -> str:
        """Such as `line 38 of data.path=train.csv`."""
        return f"{self.place(i)} of {self.origin}" if self.origin else self.place(i)


def identity(text: str) -> str:
    """Equal for texts that differ in blanks or in the composition of their characters alone."""
    return unicodedata.normalize("NFC", " ".join(text.split()))


def whole_texts(texts: Sequence[str], numbers: Sequence[int], origin: str, unit: str) -> list[str]:
    """The texts without lone surrogates, replaced as the runtime does it, and a warning where there are any."""
    fixed = [whole(text) for text in texts]
    notices = Notices(origin, unit)
    for i, (text, new) in enumerate(zip(texts, fixed, strict=True)):
        if text != new:
            notices.add(
                "texts with half a surrogate pair, which is replaced by U+FFFD", numbers[i] if numbers else i + 1, new
            )
    notices.log()
    return fixed
