"""`Placeholders`: typed names in the place of personal data, the same name for the same value within a row."""

import re
from collections import Counter
from collections.abc import Iterable, Mapping
from typing import Any

from mangakd.labelling.curate.personal.finder import Finder

NAME = re.compile(r"<([A-Z_]+)_(\d+)>")


class Placeholders:
    """Of one row. texts: all texts of the row; names that stand in them already are not given again.

    counts: kind → how many different values were replaced.
    """

    def __init__(self, finder: Finder, texts: Iterable[str]) -> None:
        self._finder = finder
        self._names: dict[tuple[str, str], str] = {}
        self._last: Counter[str] = Counter()
        for text in texts:
            for kind, number in NAME.findall(text):
                self._last[kind] = max(self._last[kind], int(number))

    @property
    def counts(self) -> Counter[str]:
        return Counter(kind for kind, _ in self._names)

    def text(self, text: str) -> str:
        """The text with placeholders."""
        parts, end = [], 0
        for match in self._finder.matches(text):
            parts += [text[end : match.start], self._name(match.kind, match.value)]
            end = match.end
        return "".join([*parts, text[end:]])

    def cell(self, value: Any) -> Any:
        """A cell with placeholders in each of its texts: a text, a list, or an object such as a message."""
        if isinstance(value, str):
            return self.text(value)
        if isinstance(value, list | tuple):
            return [self.cell(each) for each in value]
        if isinstance(value, Mapping):
            return {name: each if name == "role" else self.cell(each) for name, each in value.items()}
        return value

    def _name(self, kind: str, value: str) -> str:
        if (kind, value) not in self._names:
            self._last[kind] += 1
            self._names[kind, value] = f"<{kind}_{self._last[kind]}>"
        return self._names[kind, value]


def texts_in(value: Any) -> Iterable[str]:
    """Each text of a cell."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, Mapping):
        for each in value.values():
            yield from texts_in(each)
    elif isinstance(value, list | tuple):
        for each in value:
            yield from texts_in(each)
