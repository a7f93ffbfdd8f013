"""`writes=paraphrases`: other wordings of each text with its label, as more training data for `task=intent`.

The teacher writes several, and the best are kept by a score that needs no model, or an encoder's cosine where one is given.
"""

import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar

import numpy as np

from mangakd.core.errors import UserError
from mangakd.data.rows import Columns, Messages, Rows, identity
from mangakd.labelling.forms.form import Form, Row, Unusable
from mangakd.labelling.forms.lines import texts_of
from mangakd.labelling.provider import Answer, Embedder
from mangakd.labelling.templates import Template

N = 3  # characters of an n-gram: no language needs words split for it


@dataclass(frozen=True, kw_only=True)
class Paraphrases(Form):
    """count: how many the teacher writes for a text. best: how many are kept. least: of the score.

    The template gets `text`, `label` (or "") and `count`. Columns: text, label, and `score`, as in `score`.
    """

    columns: ClassVar[Columns] = {"text": "text", "label": "label"}
    needs: ClassVar[tuple[str, ...]] = ("text",)
    prompt: Template
    count: int = 5
    best: int = 2
    least: float = 0.3
    encoder: Embedder | None = field(default=None, compare=False)

    def __post_init__(self) -> None:
        if not (isinstance(self.count, int) and isinstance(self.best, int) and 1 <= self.best <= self.count):
            raise UserError(
                f"paraphrasing.count={self.count} and paraphrasing.best={self.best} must be whole numbers, 1 ≤ best ≤ count."
            )
        if not 0 <= self.least < 1:
            raise UserError(f"paraphrasing.least={self.least} must be from 0 to 1.")

    @property
    def settings(self) -> Mapping[str, Any]:
        own = {"count": self.count, "best": self.best, "least": self.least, "prompt": self.prompt.sha256}
        return {**own, "encoder": dict(self.encoder.identity)} if self.encoder else own

    def prompts(self, rows: Rows) -> Iterator[Messages]:
        for i, (text, label) in enumerate(zip(rows["text"], rows["label"], strict=True)):
            if not text.strip():
                raise UserError(f"{rows.where(i)} has no text. Fill or remove it, or set data.columns.text.")
            values = {"text": text, "label": ", ".join(label), "count": self.count}
            yield self.prompt.messages(values, rows.where(i))

    def read(self, rows: Rows, i: int, answer: Answer) -> Sequence[Row]:
        source, label = rows["text"][i], rows["label"][i]
        texts = texts_of(answer.text)[: self.count]
        scores = self._scores(source, texts)
        order = sorted(range(len(texts)), key=lambda place: -scores[place])[: self.best]
        chosen = [place for place in order if scores[place] > 0 and scores[place] >= self.least]
        if not chosen:
            raise Unusable(f"no paraphrase with a score of paraphrasing.least={self.least:g}", answer.text)
        cells = {"label": label[0] if len(label) == 1 else [*label]} if label else {}
        return [{"text": texts[place], **cells, "score": round(scores[place], 6)} for place in chosen]

    def _scores(self, source: str, texts: Sequence[str]) -> list[float]:
        if self.encoder is None or not texts:
            return [score(source, text) for text in texts]
        vectors = np.asarray(self.encoder.vectors([source, *texts]), np.float64)
        units = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
        return [score(source, text, float(cosine)) for text, cosine in zip(texts, units[1:] @ units[0], strict=True)]


def score(source: str, text: str, cosine: float | None = None) -> float:
    """How good a paraphrase is, in [0, 1]: length · difference · meaning.

    Of the words of both texts, without case and punctuation, s is the Dice coefficient of the character trigrams, and length =
    shorter / longer in characters. With a cosine: difference = 1 − s, meaning = max(cosine, 0). Without: difference · meaning =
    4 s (1 − s), because shared trigrams are the only sign of a shared meaning; a copy and a text that shares nothing both get 0.
    """
    one, other = (" ".join(re.findall(r"\w+", identity(each).casefold())) for each in (source, text))
    if not one or not other:
        return 0.0
    length = min(len(one), len(other)) / max(len(one), len(other))
    shared = dice(one, other)
    return length * (4 * shared * (1 - shared) if cosine is None else (1 - shared) * max(cosine, 0.0))


def dice(one: str, other: str) -> float:
    """2 |A ∩ B| / (|A| + |B|) of the multisets of character trigrams, with a blank before and after each text."""
    left, right = (Counter(f" {text} "[i : i + N] for i in range(len(text))) for text in (one, other))
    total = left.total() + right.total()
    return 2 * (left & right).total() / total if total else 0.0
