"""`writes=scores`: how relevant each document is to its query, on a scale of whole numbers, for `teacher=scores`."""

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, ClassVar

from mangakd.core.errors import UserError
from mangakd.data.rows import Columns, Messages, Rows, identity
from mangakd.labelling.answers import DOCUMENT
from mangakd.labelling.forms.distribution import distribution
from mangakd.labelling.forms.form import Form, Row, Unusable
from mangakd.labelling.forms.lines import json_value
from mangakd.labelling.provider import Answer
from mangakd.labelling.templates import Template

_NUMBER = re.compile(r"[\s\"'`*]*(?:score\s*[:=]\s*)?(-?\d+)[\s\"'`*]*\.?\s*", re.IGNORECASE)
MOST_LEVELS = 20  # as many alternatives as an API lists for a token


@dataclass(frozen=True, kw_only=True)
class Scores(Form):
    """least, most: ends of the scale. expected: the mean Σ p(s) · s over the scale in place of the number that was written, which
    tells documents of one level apart (Liu et al. 2023, arXiv:2303.16634); needs log-probabilities.

    A row is a query with its documents, and each pair is a request. The template gets `query`, `document`, `least` and `most`.
    """

    columns: ClassVar[Columns] = {"query": "text", "documents": "texts"}
    needs: ClassVar[tuple[str, ...]] = ("query", "documents")
    most_samples: ClassVar[int | None] = 1  # a file of scores holds one for each pair
    prompt: Template
    least: int = 0
    most: int = 3
    expected: bool = False

    def __post_init__(self) -> None:
        if not isinstance(self.least, int) or not isinstance(self.most, int) or self.least >= self.most:
            raise UserError(
                f"scoring.least={self.least} and scoring.most={self.most} must be whole numbers, least < most."
            )
        if self.expected and self.most - self.least >= MOST_LEVELS:
            raise UserError(
                f"scoring.expected=true reads the probability of each of {self.most - self.least + 1} numbers, and an API lists "
                f"{MOST_LEVELS} alternatives at most. Set a smaller scale: scoring.most={self.least + MOST_LEVELS - 1}."
            )

    @property
    def choices(self) -> tuple[str, ...]:
        return tuple(map(str, range(self.least, self.most + 1))) if self.expected else ()

    @property
    def reads_logprobs(self) -> bool:
        return self.expected

    @property
    def reads_cut(self) -> bool:  # type: ignore[override]
        return self.expected

    def requests(self, rows: Rows) -> Rows:
        """A row for each different pair, with the number of the document among those of its query."""
        first: dict[tuple[str, str], tuple[int, int, str, str]] = {}
        for i, (query, documents) in enumerate(zip(rows["query"], rows["documents"], strict=True)):
            for number, document in enumerate(documents, 1):
                first.setdefault((identity(query), identity(document)), (i, number, query, document))
        if not first:
            raise UserError(f"{rows.origin} has no document. Name the column: data.columns.documents.")
        pairs = [*first.values()]
        columns: dict[str, list[Any]] = {
            "query": [query for _, _, query, _ in pairs], "documents": [(document,) for *_, document in pairs],
            DOCUMENT: [number for _, number, _, _ in pairs],
        }  # fmt: skip
        return replace(rows, columns=columns, numbers=[rows.numbers[i] for i, *_ in pairs])

    def prompts(self, rows: Rows) -> Iterator[Messages]:
        for i, (query, (document,)) in enumerate(zip(rows["query"], rows["documents"], strict=True)):
            if not query.strip() or not document.strip():
                what = "query" if not query.strip() else f"text in document {rows[DOCUMENT][i]}"
                raise UserError(f"{rows.where(i)} has no {what}. Fill it, or name the column: data.columns.")
            values = {"query": query, "document": document, "least": self.least, "most": self.most}
            yield self.prompt.messages(values, rows.where(i))

    def read(self, rows: Rows, i: int, answer: Answer) -> Sequence[Row]:
        score = self._expected(answer) if self.expected else self._number(answer.text)
        cells = {"query": rows["query"][i], "documents": [*rows["documents"][i]]}
        return [
            {**cells, "scores": [score["score"]], **{name: value for name, value in score.items() if name != "score"}}
        ]

    def _number(self, text: str) -> Mapping[str, Any]:
        """The whole number that the answer is. Raises Unusable for any other word in it, and for one outside the scale."""
        value = json_value(text)
        match = _NUMBER.fullmatch(str(value) if isinstance(value, int) and not isinstance(value, bool) else text)
        if match is None:
            raise Unusable("no number", text)
        if not self.least <= int(match[1]) <= self.most:
            raise Unusable(f"outside the scale {self.least} … {self.most}", text)
        return {"score": int(match[1])}

    def _expected(self, answer: Answer) -> Mapping[str, Any]:
        if answer.thought:
            raise Unusable("a thought before the score", "its log-probabilities are those of the thought")
        masses = distribution(self.choices, answer.logprobs, answer.text)
        if masses is None:
            raise Unusable("no log-probabilities of the scale", answer.text)
        mean = sum(level * p for level, p in zip(range(self.least, self.most + 1), masses.probabilities, strict=True))
        return {"score": mean, "missing": masses.missing}
