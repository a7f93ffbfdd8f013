"""Rows of a conversation and its rewrite → sequences of source and target, each a row of the split.

A row holds an `utterance` with the `history` before it and its `rewrite`, or an `input` and its `target`. Several texts in one
`rewrite` are expansions: each is a sequence of its own with the same source, because that is how a student writes them, as the
best beams of one source. A split may so have more rows than the data, and `owners` leads back.
"""

import logging

import numpy as np

from mangakd.core.errors import UserError
from mangakd.data.encoded import EncodedSplit, Tokenise
from mangakd.data.notices import Notices
from mangakd.data.rows import Columns, Rows
from mangakd.data.seq2seq import Pair, SourceOptions

log = logging.getLogger(__name__)
COLUMNS: Columns = {
    "history": "turns", "utterance": "text", "input": "text", "rewrite": "answers", "target": "answers",
    "answer": "answer", "source": "name", "conversation": "group", "query_id": "name",
}  # fmt: skip
"""All of them are optional. answer: of the utterance, which a search with the rewrite should find. query_id: in a BEIR folder."""


def check(rows: Rows) -> None:
    """Raises UserError for a row that holds no text to rewrite, or two of them, or two targets."""
    for i, (history, utterance, text, rewrite, target) in enumerate(
        zip(*(rows[name] for name in ("history", "utterance", "input", "rewrite", "target")), strict=True)
    ):
        if bool(utterance.strip()) == bool(text.strip()):
            what = "both an utterance and an input" if text.strip() else "neither an utterance nor an input"
            raise UserError(
                f"{rows.where(i)} holds {what}. A row holds one of them; data.columns.utterance and data.columns.input name the "
                "columns."
            )
        if text.strip() and history:
            raise UserError(
                f"{rows.where(i)} has a history beside its input: name the input's column as the utterance."
            )
        if rewrite and target:
            raise UserError(
                f"{rows.where(i)} has both a rewrite and a target. A row holds one of them: correct the row."
            )


def learnable(name: str, rows: Rows) -> Rows:
    """The rows that have a target. name: of the split. Warns of the others; raises UserError where no row has one."""
    places = [i for i, texts in enumerate(targets(rows)) if texts]
    if not places:
        raise UserError(
            f"no row of {name} ({rows.origin}) has a rewrite or a target: name their column by data.columns.rewrite. To have a "
            "teacher write them: mangakd label."
        )
    notices = Notices(rows.origin, rows.unit)
    for i in sorted({*range(len(rows))} - {*places}):
        number = rows.numbers[i] if rows.numbers else i + 1
        notices.add(f"rows of {name} without a rewrite or target, left out", number, utterances(rows)[i])
    notices.log()
    return rows if len(places) == len(rows) else rows.take(places)


def targets(rows: Rows) -> list[tuple[str, ...]]:
    """The texts that each row's model should write."""
    return [rewrite or target for rewrite, target in zip(rows["rewrite"], rows["target"], strict=True)]


def utterances(rows: Rows) -> list[str]:
    """The text of each row that is rewritten."""
    return [
        utterance if utterance.strip() else text
        for utterance, text in zip(rows["utterance"], rows["input"], strict=True)
    ]


def turns(rows: Rows) -> list[tuple[str, ...]]:
    """What the model reads of each row: the history and the text that is rewritten."""
    return [(*history, text) for history, text in zip(rows["history"], utterances(rows), strict=True)]


def is_later(rows: Rows) -> np.ndarray:
    """(N) whether a row is a later turn, or an input. A first turn stands alone: most of its rewrites are copies.

    All rows are, where none has a history.
    """
    later = np.array([any(map(str.strip, history)) for history in rows["history"]], dtype=bool)
    inputs = np.array([bool(text.strip()) for text in rows["input"]], dtype=bool)
    return later | inputs if later.any() else np.ones(len(rows), dtype=bool)


def encoded(rows: Rows, tokenise: Tokenise, options: SourceOptions) -> EncodedSplit:
    """A split of S sequences, which counts `targets`. tokens (S): the number of target tokens. later (S): see `is_later`.

    source_row (S): the place of the row, so that the expansions of one source count as one unit of an interval.
    """
    pairs = [
        Pair(read, target, i)
        for i, (read, own) in enumerate(zip(turns(rows), targets(rows), strict=True))
        for target in own
    ]
    sides, owners, counts = tokenise.targets(pairs, rows, options)
    columns = {
        "tokens": counts,
        "later": is_later(rows)[owners].astype(np.int64),
        "source_row": owners.astype(np.int64),
    }
    return EncodedSplit(sides, columns, {"targets": counts}, owners=owners)
