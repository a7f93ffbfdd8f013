"""Hard negatives: for each anchor the texts that the teacher finds most similar, and that are still no positives.

Many of the most similar texts are answers that nobody has marked. So a negative's cosine with the anchor is bounded by the
positive's, with the teacher's cosines s⁻ and s⁺:

    s⁻ ≤ share · s⁺ − margin          (for s⁺ < 0: s⁺ / share stands for share · s⁺, which would lie above s⁺)

Candidates are the second texts and negatives of all rows with a positive, each different text once. A candidate is never mined
for a row whose anchor, positive or negatives have its text, nor if it is a positive of another row with the same anchor. Texts
are equal if they have the same tokens, or differ in blanks alone.
N rows, K negatives a row, S sequences, U candidates, D dimensions.

Source: NV-Retriever, Moreira et al. 2024 (arXiv:2407.15831): TopK-PercPos is `share`, TopK-MarginPos is `margin`.
"""

import logging
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from mangakd.core.errors import UserError
from mangakd.data.encoded import EncodedSplit
from mangakd.data.rows import Rows, identity
from mangakd.tasks.base import Answers
from mangakd.tasks.embedding.encode import texts_of
from mangakd.tasks.embedding.scores import unit

log = logging.getLogger(__name__)
KEY = "task.hard_negatives"
DRAWS = ("top", "random")
_ROWS = 256  # anchors at a time
NONE = -1


@dataclass(frozen=True)
class Mining:
    """count: negatives of a row; 0: none. share, margin: see above. candidates: how many of the most similar texts within the
    bound are looked at. draw: top, the most similar of them, or random ones by `seed`.

    Raises UserError for a value outside its range.
    """

    count: int = 0
    share: float = 0.95
    margin: float = 0.0
    candidates: int = 50
    draw: str = "top"
    seed: int = 0

    def __post_init__(self) -> None:
        whole = {"count": 0, "candidates": max(self.count, 1) if isinstance(self.count, int) else 1, "seed": 0}
        for name, least in whole.items():
            value = getattr(self, name)
            if not isinstance(value, int) or isinstance(value, bool) or value < least:
                raise UserError(f"{KEY}.{name}={value!r} must be a whole number from {least} on.")
        if not isinstance(self.share, int | float) or not 0 < self.share <= 1:
            raise UserError(f"{KEY}.share={self.share!r} must lie in (0, 1]: a part of the positive's cosine.")
        if not isinstance(self.margin, int | float) or not 0 <= self.margin < 2:
            raise UserError(f"{KEY}.margin={self.margin!r} must lie in [0, 2): a difference of cosines.")
        if self.draw not in DRAWS:
            raise UserError(f"{KEY}.draw={self.draw!r} is unknown; known: {', '.join(DRAWS)}.")

    def bounds(self, positive: np.ndarray) -> np.ndarray:
        """Cosines of positives → the largest cosine of a negative."""
        return np.where(positive >= 0, self.share * positive, positive / self.share) - self.margin


Name = tuple[str, int]


def mine(options: Mining, rows: Rows, split: EncodedSplit, answers: Answers) -> np.ndarray:
    """(N, K) positions of sequences that become negatives of each row, the most similar first; NONE where there are fewer."""
    negatives = np.full((len(split), options.count), NONE, dtype=np.int64)
    pool = _Pool(rows, split)
    keys, places = np.unique(split.teacher.keys[pool.sequences], return_index=True)
    vectors = unit(answers(pool.sequences[places])).astype(np.float32)

    def of(sequences: np.ndarray) -> np.ndarray:
        return vectors[np.searchsorted(keys, split.teacher.keys[sequences])]

    candidates = of(pool.candidates)
    for start in range(0, len(pool.rows), _ROWS):
        block = pool.rows[start : start + _ROWS]
        anchors, positives = of(pool.first[block]), of(pool.first[block] + 1)
        bounds = options.bounds((anchors * positives).sum(1, dtype=np.float64))
        cosines = anchors @ candidates.T
        for i, row in enumerate(block.tolist()):
            cosines[i, pool.alike(row)] = np.inf
            chosen = _chosen(options, row, cosines[i], bounds[i])
            negatives[row, : len(chosen)] = pool.candidates[chosen]
    _tell(options, negatives[pool.rows])
    return negatives


def _chosen(options: Mining, row: int, cosines: np.ndarray, bound: float) -> np.ndarray:
    """Candidates of one row, the most similar first; of equal ones the first in the file."""
    within = np.flatnonzero(cosines <= bound)
    if len(within) > options.candidates:
        least = np.partition(cosines[within], -options.candidates)[-options.candidates]
        within = within[cosines[within] >= least]
    within = within[np.argsort(-cosines[within], kind="stable")][: options.candidates]
    if options.draw == "random" and len(within) > options.count:
        drawn = np.random.default_rng((options.seed, row)).choice(len(within), options.count, replace=False)
        within = within[np.sort(drawn)]
    return within[: options.count]


class _Pool:
    """rows: with a positive. candidates: positions of the different second texts and negatives. sequences: of all these rows."""

    def __init__(self, rows: Rows, split: EncodedSplit) -> None:
        assert split.first is not None
        self.first, self._ends, self._keys = split.first[:-1], split.first[1:], split.teacher.keys
        self.rows = np.flatnonzero(split.columns["labels"] == 1)
        numbers: dict[str, int] = {}
        self._texts = [numbers.setdefault(identity(text), len(numbers)) for texts in texts_of(rows) for text in texts]
        documents = np.concatenate([np.arange(self.first[row] + 1, self._ends[row]) for row in self.rows])
        _, places = np.unique(self._keys[documents], return_index=True)
        self.candidates = documents[np.sort(places)]
        self.sequences = np.concatenate([self.first[self.rows], self.first[self.rows] + 1, self.candidates])
        self._equal: dict[Name, list[int]] = defaultdict(list)
        for place, sequence in enumerate(self.candidates.tolist()):
            for name in self._names(sequence):
                self._equal[name].append(place)
        self._positives: dict[Name, set[int]] = defaultdict(set)
        for anchor in self.first[self.rows].tolist():
            for name in self._names(anchor):
                self._positives[name].update(self._places(anchor + 1))

    def alike(self, row: int) -> list[int]:
        """Candidates that are no negatives of a row."""
        places: set[int] = set().union(*(self._positives[name] for name in self._names(int(self.first[row]))))
        for sequence in range(self.first[row], self._ends[row]):
            places.update(self._places(sequence))
        return [*places]

    def _names(self, sequence: int) -> tuple[Name, Name]:
        """By which a sequence is found: its tokens and its text."""
        return ("tokens", int(self._keys[sequence])), ("text", self._texts[sequence])

    def _places(self, sequence: int) -> Iterator[int]:
        """Candidates of equal text."""
        return (place for name in self._names(sequence) for place in self._equal.get(name, ()))


def _tell(options: Mining, negatives: np.ndarray) -> None:
    counts = (negatives != NONE).sum(1)
    fewer, none = int((counts < options.count).sum()), int((counts == 0).sum())
    log.info(
        "hard negatives: %.1f for each of %d rows with a positive%s.", counts.mean(), len(counts),
        f"; {fewer} rows got fewer than {KEY}.count={options.count}, {none} of them none, as no other texts are within "
        f"share={options.share:g} and margin={options.margin:g}" if fewer else "",
    )  # fmt: skip
