"""`writes=expansions`: several search queries for a query or a turn, as the list of targets that `task=rewrite` learns.

A search with each of them finds what one wording misses; `task.expansions` says how many a student writes.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from mangakd.data.rows import Rows
from mangakd.labelling.forms.form import Row
from mangakd.labelling.forms.lines import check_counts, counted, texts_of
from mangakd.labelling.forms.rewrites import Turns
from mangakd.labelling.provider import Answer
from mangakd.labelling.templates import Template


@dataclass(frozen=True, kw_only=True)
class Expansions(Turns):
    """least, most: how many queries a row has; of more the first ones are taken, and an answer with fewer is unusable.

    The template gets `history`, `utterance`, `least` and `most`.
    """

    prompt: Template
    least: int = 3
    most: int = 5

    def __post_init__(self) -> None:
        check_counts(self.least, self.most, "expanding")

    def values(self, history: Sequence[str], utterance: str) -> Mapping[str, Any]:
        return {**super().values(history, utterance), "least": self.least, "most": self.most}

    def read(self, rows: Rows, i: int, answer: Answer) -> Sequence[Row]:
        return [self.row(rows, i, counted(texts_of(answer.text), self.least, self.most))]
