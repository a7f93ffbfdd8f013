"""The names of labels: where they come from, the letters that stand for them, and which one an answer says."""

import re
import string
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from mangakd.core.errors import UserError
from mangakd.data.columns import Column, table_rows
from mangakd.data.rows import names_of
from mangakd.data.tables import existing, read_table
from mangakd.labelling.forms.form import Unusable
from mangakd.labelling.forms.lines import json_value

LETTERS = string.ascii_uppercase + string.ascii_lowercase
ONE_CASE = len(string.ascii_uppercase)  # with so many labels, or fewer, no two letters differ in case alone
_ROUND = " \t\r\n\"'`*“”「」()[]<>"


@dataclass(frozen=True)
class LabelNames:
    """descriptions: name → what it means, or "". letters: whether a model is asked for a letter in place of a name.

    Raises UserError for fewer than two names, for two that differ in case alone, and for more names than letters.
    """

    descriptions: Mapping[str, str]
    letters: bool = False

    def __post_init__(self) -> None:
        if len(self.descriptions) < 2:
            raise UserError(
                f"labels.names has {len(self.descriptions)} names; a classifier needs two or more: labels.names=[one,other], or "
                "labels.path=<labelled file>."
            )
        if len({name.casefold() for name in self.names}) < len(self.names):
            raise UserError(f"labels.names has names that differ in case alone: {', '.join(self.names)}. Rename one.")
        if self.letters and len(self.names) > len(LETTERS):
            raise UserError(
                f"labels.answer=letter has {len(LETTERS)} letters, and there are {len(self.names)} labels. Set "
                "labels.answer=name, or use provider=local, which computes the probability of each name."
            )

    @property
    def names(self) -> tuple[str, ...]:
        return tuple(self.descriptions)

    @property
    def choices(self) -> tuple[str, ...]:
        """What a model answers with, in the order of the names."""
        return tuple(LETTERS[: len(self.names)]) if self.letters else self.names

    @property
    def options(self) -> list[dict[str, str]]:
        """For templates: choice, name and description of each label."""
        each = zip(self.choices, self.descriptions.items(), strict=True)
        return [{"choice": choice, "name": name, "description": text} for choice, (name, text) in each]

    def read(self, answer: str) -> str:
        """The name that an answer says: a choice, a name, or both (`B. refund`), alone but for marks around them.

        Raises Unusable for any other answer.
        """
        value = json_value(answer)
        text = _plain(value if isinstance(value, str) else answer)
        if answer.strip() in self.names:
            return answer.strip()
        letter = text.upper() if len(self.names) <= ONE_CASE else text
        if self.letters and letter in self.choices:
            return self.names[self.choices.index(letter)]
        if (name := self._spellings.get(text.casefold())) is None:
            raise Unusable("no label", answer)
        return name

    @cached_property
    def _spellings(self) -> Mapping[str, str]:
        pairs = zip(self.choices, self.names, strict=True) if self.letters else ()
        both = {f"{letter}{mark} {name}".casefold(): name for letter, name in pairs for mark in (".", ")", ":")}
        return {**{_plain(name).casefold(): name for name in self.names}, **both}


def label_names(names: Any, path: str | None, column: str | int, letters: bool) -> LabelNames:
    """names: a list, or a mapping to descriptions. path, column: of a labelled file that holds them, where names is None.

    Raises UserError where both are given or neither.
    """
    if (names is None) == (path is None):
        what = "both set" if path is not None else "both null"
        raise UserError(
            f"labels.names and labels.path are {what}. Name the labels (labels.names=[one,other]), or give a labelled file "
            "(labels.path=train.csv)."
        )
    if isinstance(names, Mapping):
        return LabelNames({str(name).strip(): str(text or "") for name, text in names.items()}, letters)
    each = [*names] if path is None else _of_file(path, column)
    if repeated := next((name for name in each if each.count(name) > 1), None):
        raise UserError(f"labels.names names {repeated} twice.")
    return LabelNames({str(name).strip(): "" for name in each}, letters)


def _of_file(path: str, column: str | int) -> Sequence[str]:
    table = read_table(existing(path, "labels.path"), "labels.path")
    rows = table_rows(table, {"label": Column("label", column, "labels.column")}, f"labels.path={Path(path)}")
    return names_of(rows, "label")


def _plain(text: str) -> str:
    """Without `Label:` before it, and marks around it."""
    text = text.strip(_ROUND)
    text = re.sub(r"^(?:label|answer|letter)\s*[:=]\s*", "", text, flags=re.IGNORECASE)
    return text.strip(_ROUND).rstrip(".").strip(_ROUND)
