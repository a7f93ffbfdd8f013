"""BM25: documents that share words with a query, the usual first stage of a search and the baseline of every ranker.

Lucene's variant with k1 = 1.5 and b = 0.75, computed by bm25s. Words are runs of letters and digits, without case. Scripts
without blanks between words (Chinese, Japanese) are read as pairs of neighbouring characters, as Lucene's CJKAnalyzer does it.
There is no list of stop words and no stemmer, which would belong to one language.
Source: Robertson and Zaragoza 2009, doi:10.1561/1500000019; Kamphuis et al. 2020, doi:10.1007/978-3-030-45442-5_4.
"""

import logging
import re
import unicodedata
from collections.abc import Iterator, Sequence
from itertools import pairwise

import numpy as np

from mangakd.core.errors import UserError

_UNSPACED = "\u3005\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff"  # Han, hiragana and katakana
_RUN = re.compile(rf"[{_UNSPACED}]+|[^\W{_UNSPACED}]+")


def words(text: str) -> Iterator[str]:
    """What two texts share, or do not."""
    for run in _RUN.findall(unicodedata.normalize("NFKC", text).casefold()):
        if re.match(f"[{_UNSPACED}]", run) and len(run) > 1:
            yield from map("".join, pairwise(run))
        else:
            yield run


class Bm25:
    """documents: N texts. Raises UserError where bm25s is not installed."""

    def __init__(self, documents: Sequence[str]) -> None:
        try:
            import bm25s
        except ImportError as error:
            raise UserError("BM25 needs the package bm25s: pip install 'mangakd[ranking]'.") from error
        logging.getLogger("bm25s").setLevel(logging.WARNING)  # the package sets it to DEBUG, and logs each index
        self._size = len(documents)
        self._vocabulary: dict[str, int] = {}
        number = self._vocabulary
        ids = [[number.setdefault(word, len(number)) for word in words(text)] for text in documents]
        self._index = bm25s.BM25(k1=1.5, b=0.75, method="lucene")
        if number:
            self._index.index((ids, number), create_empty_token=False, show_progress=False)

    def scores(self, query: str) -> np.ndarray:
        """(N) float32, 0 for a document that shares no word with the query."""
        numbers = [self._vocabulary[word] for word in words(query) if word in self._vocabulary]
        if not numbers:
            return np.zeros(self._size, np.float32)
        return self._index.get_scores_from_ids(numbers)

    def best(self, query: str, count: int) -> np.ndarray:
        """Positions of at most `count` documents that share a word with the query, the best first. Ties: the earlier first."""
        scores = self.scores(query)
        hits = np.flatnonzero(scores > 0)
        if len(hits) > count:  # without a sort of all hits
            hits = hits[scores[hits] >= np.partition(scores[hits], -count)[-count]]
        return hits[np.argsort(-scores[hits], kind="stable")][:count]
