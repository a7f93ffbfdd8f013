"""Scores of queries and documents in files that others wrote.

Lines: a TREC run (`qid Q0 docid rank score tag`), or as for MS MARCO `qid docid score`, `score+ score- qid docid+ docid-`, or
`qid docid+ docid- score+ score-`. They name queries and documents by their ids. Tables (JSON, JSONL, CSV, Parquet, Arrow) hold
the texts: `query`, `documents` and `scores`.
"""

import io
import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from mangakd.core.errors import UserError
from mangakd.data.cells import CellError, number_of
from mangakd.data.columns import Column, table_rows
from mangakd.data.encoding import read_text
from mangakd.data.notices import short
from mangakd.data.rows import ColumnKind
from mangakd.data.tables import ENDINGS, existing, read_table

FORMATS = (
    "Known: TREC runs (qid Q0 docid rank score tag); lines of qid docid score, of score+ score- qid docid+ docid-, or of qid "
    "docid+ docid- score+ score-; and tables with the columns query, documents, scores"
)
KINDS: dict[str, ColumnKind] = {"query": "text", "documents": "texts", "scores": "numbers"}
Pair = tuple[str, str]
Cells = Sequence[str]
Entry = tuple[str, Pair, float]  # (its place, the pair, the score)


@dataclass(frozen=True)
class Scores:
    """of: (query, document) → score, in the order of the file. ids: whether the pairs are of ids; else they are of texts."""

    of: dict[Pair, float]
    ids: bool

    @property
    def ranks(self) -> bool:
        """Whether each query's scores are 1, 2, 3, … in the order of the file: places, the best of which is the smallest."""
        lists: dict[str, list[float]] = {}
        for (query, _), score in self.of.items():
            lists.setdefault(query, []).append(score)
        longest = max(map(len, lists.values()))
        return longest > 1 and all(scores == [*range(1, len(scores) + 1)] for scores in lists.values())


def read_scores(path: str | None, key: str) -> Scores:
    """Raises UserError for lines of no known format, scores that are not finite, and two scores for one pair."""
    file = existing(path, key)
    is_table = file.suffix.lower() in ENDINGS and file.suffix.lower() != ".tsv"
    scores: dict[Pair, float] = {}
    for where, pair, score in _of_table(file, key) if is_table else _of_lines(file, key):
        if scores.setdefault(pair, score) != score:
            raise UserError(
                f"{where} gives {short(pair[1])} for {short(pair[0])} the score {score:g}, and an earlier place "
                f"{scores[pair]:g}. Remove one of them."
            )
    return Scores(scores, ids=not is_table)


def _of_table(file: Path, key: str) -> Iterator[Entry]:
    rows = table_rows(
        read_table(file, key), {name: Column(kind, name, key) for name, kind in KINDS.items()}, f"{key}={file}"
    )
    for i, (query, documents, scores) in enumerate(zip(*(rows[name] for name in KINDS), strict=True)):
        if len(documents) != len(scores) or any(map(math.isnan, scores)):
            raise UserError(
                f"{rows.where(i)} has {len(documents)} documents and {sum(score == score for score in scores)} scores; "
                "give each document one."
            )
        yield from (
            (rows.where(i), (query, document), score) for document, score in zip(documents, scores, strict=True)
        )


def _of_lines(file: Path, key: str) -> Iterator[Entry]:
    lines = [
        (f"line {number} of {key}={file}", line.split())
        for number, line in enumerate(io.StringIO(read_text(file, key)), 1)
        if line.strip()
    ]
    layout = next((each for _, cells in lines[:2] if (each := _layout(cells))), None)
    for place, (where, cells) in enumerate(lines):
        try:
            entries = (
                [(query, document, number_of(score)) for query, document, score in layout(*cells)] if layout else []
            )
        except (CellError, TypeError):
            entries = []
        if not entries and (layout is None or place):  # the first line may be a header
            raise UserError(
                f"{where} holds {short(' '.join(cells))}, which are no scores of a known format. {FORMATS}."
            )
        yield from ((where, (query, document), score) for query, document, score in entries)


def _layout(cells: Cells) -> Callable[..., list[tuple[str, str, str]]] | None:
    """What the cells of a line mean, by their number, and by the points in them where two meanings are possible."""
    front, back = (any("." in cell for cell in part) for part in (cells[:2], cells[3:]))
    if len(cells) == 6 and _are_numbers(cells[4:5]):
        return lambda query, _, document, rank, score, tag: [(query, document, score)]
    if len(cells) == 5 and front > back and _are_numbers(cells[:2]):
        return lambda high, low, query, good, bad: [(query, good, high), (query, bad, low)]
    if len(cells) == 5 and back > front and _are_numbers(cells[3:]):
        return lambda query, good, bad, high, low: [(query, good, high), (query, bad, low)]
    if len(cells) == 3 and _are_numbers(cells[2:]):
        return lambda query, document, score: [(query, document, score)]
    return None


def _are_numbers(cells: Cells) -> bool:
    try:
        return all(math.isfinite(number_of(cell)) for cell in cells)
    except CellError:
        return False
