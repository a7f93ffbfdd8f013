"""Rows that are nearly an earlier row: MinHash signatures of their shingles in an LSH index, by datasketch.

The share of signature values that two rows have in common estimates the Jaccard similarity J of their sets of shingles, with a
standard error of √(J (1 − J) / permutations): 0.035 at J = 0.8 and 128 permutations. The index proposes rows, and a row is left
out if the estimate reaches the threshold. Memory: 4 bytes × permutations a row, and the index.
Source: Broder 1997, doi:10.1109/SEQUEN.1997.666900; Leskovec et al., Mining of Massive Datasets, chapter 3.
"""

import hashlib
import zlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

from mangakd.core.errors import UserError
from mangakd.data.bm25 import words
from mangakd.labelling.curate.extras import package
from mangakd.labelling.curate.filters.base import Filter, check_count, check_part, check_share
from mangakd.labelling.curate.filters.duplicates import normalised
from mangakd.labelling.curate.filters.signatures import Signatures
from mangakd.labelling.curate.record import Record

KEY = "filters.near_duplicates"
SHINGLES = ("characters", "words")
SEED = 1  # of the permutations
MISSES = (
    0.1,
    0.9,
)  # how the index weighs rows that it proposes wrongly, whose estimate decides, and rows that it misses


@dataclass
class NearDuplicates(Filter):
    """of: row, prompt or answer. shingles: runs of `size` characters or words. threshold: of the estimated similarity.

    against: folders of mangakd curate whose rows count as earlier ones; they hold an index where keep=true.
    """

    title: ClassVar[str] = "near duplicates"
    of: str = "row"
    shingles: str = "characters"
    size: int = 5
    threshold: float = 0.8
    permutations: int = 128
    keep: bool = False
    against: Sequence[str] = ()

    def __post_init__(self) -> None:
        check_part(self.of, f"{KEY}.of")
        check_share(self.threshold, f"{KEY}.threshold")
        check_count(self.size, f"{KEY}.size")
        check_count(self.permutations, f"{KEY}.permutations")
        if self.shingles not in SHINGLES:
            raise UserError(f"{KEY}.shingles={self.shingles} must be one of {', '.join(SHINGLES)}.")
        sketch = package("datasketch", KEY)
        self._empty = sketch.MinHash(num_perm=self.permutations, seed=SEED, hashfunc=int)
        self._index = self._new_index(sketch)
        self._signatures: list[np.ndarray] = []
        self._rows: list[str] = []
        for folder in self.against:
            self._read(Path(folder).expanduser())
        self._earlier = len(self._rows)

    def _new_index(self, sketch: Any) -> Any:
        """Raises UserError where datasketch cannot divide the permutations into two bands or more."""
        try:
            return sketch.MinHashLSH(threshold=self.threshold, num_perm=self.permutations, weights=MISSES)
        except ValueError as error:
            raise UserError(
                f"{KEY}.threshold={self.threshold:g} is too near to 1 for {self.permutations} permutations, whose index then "
                f"has no two bands. Use {KEY}.threshold=0.95 or {KEY}.permutations={4 * max(self.permutations, 32)}; equal rows "
                "are left out by filters.duplicates."
            ) from error

    @property
    def settings(self) -> dict[str, Any]:
        return {**super().settings, "against": [Signatures.digest(Path(each).expanduser()) for each in self.against]}

    def reason(self, record: Record) -> str | None:
        sketch = self._sketch(record)
        if sketch is None:
            return None
        similarity, place = self._nearest(sketch)
        if similarity >= self.threshold:
            return f"{similarity:.2f} of {self._rows[place]}"
        self._insert(sketch, f"row {record.number}")
        return None

    def signatures(self) -> Signatures:
        """Those of the rows of this file that passed."""
        own = self._signatures[self._earlier :]
        values = np.array(own, dtype=np.uint32).reshape(len(own), self.permutations)
        return Signatures(values, self._rows[self._earlier :], self._form)

    @property
    def _form(self) -> dict[str, Any]:
        """What two signatures must have in common to be compared."""
        return {name: getattr(self, name) for name in ("of", "shingles", "size", "permutations")}

    def _read(self, folder: Path) -> None:
        earlier = Signatures.read(folder, self._form, f"{KEY}.against")
        for values, row in zip(earlier.values, earlier.rows, strict=True):
            sketch = self._empty.copy()
            sketch.hashvalues = values.copy()
            self._insert(sketch, f"{row} of {folder}")

    def _insert(self, sketch: Any, row: str) -> None:
        self._index.insert(len(self._rows), sketch, check_duplication=False)
        self._signatures.append(sketch.hashvalues.astype(np.uint32))
        self._rows.append(row)

    def _nearest(self, sketch: Any) -> tuple[float, int]:
        """The greatest similarity to an earlier row, and the first row that has it."""
        places = sorted(self._index.query(sketch))
        if not places:
            return 0.0, -1
        shares = [float(np.mean(self._signatures[place] == sketch.hashvalues)) for place in places]
        best = int(np.argmax(shares))
        return shares[best], places[best]

    def _sketch(self, record: Record) -> Any:
        """None for a text shorter than a shingle."""
        hashes = {zlib.crc32(each.encode("utf-8", "replace")) for each in self._shingles(record.part(self.of))}
        if not hashes:
            return None
        if self.of == "row" and record.rest:  # equal texts under other labels are no copies: other shingles
            salt = int.from_bytes(
                hashlib.blake2b(record.rest.encode("utf-8", "replace"), digest_size=4).digest(), "big"
            )
            hashes = {each ^ salt for each in hashes}
        sketch = self._empty.copy()
        sketch.update_batch(sorted(hashes))
        return sketch

    def _shingles(self, text: str) -> Iterator[str]:
        parts = normalised(text) if self.shingles == "characters" else [*words(text)]
        for start in range(len(parts) - self.size + 1):
            yield "\0".join(parts[start : start + self.size])
