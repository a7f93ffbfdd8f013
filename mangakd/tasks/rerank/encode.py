"""Rows of a query, documents and grades → one sequence for each pair of query and document, beside a table of grades."""

from itertools import chain

import numpy as np

from mangakd.data.encoded import EncodedSplit, Tokenise
from mangakd.data.rows import Rows


def encoded(rows: Rows, tokenise: Tokenise) -> EncodedSplit:
    """grades, judged: see `truth_of`."""
    sizes, truth = widths(rows), truth_of(rows)
    owners = np.repeat(np.arange(len(rows)), sizes)
    queries = [rows["query"][i] for i in owners]
    documents = [*chain.from_iterable(rows["documents"])]
    sides = tokenise.pairs(queries, documents, lambda pair: rows.where(int(owners[pair])))
    return EncodedSplit(sides, truth, units(truth["grades"], sizes), np.concatenate([[0], np.cumsum(sizes)]))


def widths(rows: Rows) -> np.ndarray:
    """(N) documents of each query."""
    return np.array([len(documents) for documents in rows["documents"]], dtype=np.int64)


def truth_of(rows: Rows) -> dict[str, np.ndarray]:
    """grades: 0 for a document that nobody judged. judged: 1, or 0 for such a document.

    Both (N, G) float32 with G documents in the longest list, NaN in padding and in rows without grades.
    """
    sizes = widths(rows)
    grades = np.full((len(rows), sizes.max(initial=0)), np.nan, dtype=np.float32)
    judged = grades.copy()
    if "grades" in rows:
        there = np.arange(grades.shape[1]) < sizes[:, None]
        given = np.array([*chain.from_iterable(rows["grades"])], dtype=np.float32)
        grades[there], judged[there] = np.nan_to_num(given), np.isfinite(given)
    return {"grades": grades, "judged": judged}


def units(grades: np.ndarray, sizes: np.ndarray) -> dict[str, np.ndarray]:
    """What ranking losses count: rows with grades, with two documents or more, with two different grades (losses/groups.py)."""
    graded = np.isfinite(grades)
    high, low = np.where(graded, grades, -np.inf).max(1), np.where(graded, grades, np.inf).min(1)
    counts = {"labels": graded.any(1), "groups": sizes >= 2, "ordered": high > low}
    return {unit: marks.astype(np.int64) for unit, marks in counts.items()}
