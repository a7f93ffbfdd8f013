"""What one record of a store holds. `dense`: every member's logit for every output of the head.

A codec says how a record lies on disk and refuses what must never get there. It lives apart from writer and reader so
that another kind of teacher output is another class here and nothing else in the folder handling changes, as long as all
its records have one size.
Source: mangakd design, the store of teacher outputs.
"""

from dataclasses import dataclass

import numpy as np

from mangakd.core.errors import UserError

# Little-endian on every machine, so that the hash of a shard does not depend on who wrote it.
FLOATS = {"float32": "<f4", "float16": "<f2"}


@dataclass(frozen=True)
class Dense:
    """members M, outputs C, dtype `float32` or `float16` (half the bytes, logits to about 3 digits)."""

    members: int
    outputs: int
    dtype: str

    @property
    def record(self) -> np.dtype:
        """key int64 and logits (M, C), without padding in between."""
        return np.dtype([("key", "<i8"), ("logits", FLOATS[self.dtype], (self.members, self.outputs))])

    def encode(self, keys: np.ndarray, logits: np.ndarray, positions: np.ndarray) -> np.ndarray:
        """Records (n) from keys (n) and logits (n, M, C); `positions` (n) is where the caller finds each example.

        Raises UserError for another shape, and for NaN or inf, naming positions: stored once, they poison every run.
        """
        expected = (len(keys), self.members, self.outputs)
        if logits.shape != expected:
            raise UserError(
                f"the teacher gave logits of shape {logits.shape}; the store's manifest asks for {expected} "
                "(examples, members, outputs). Check the teacher's labels and `teacher.store`."
            )
        records = np.empty(len(keys), self.record)
        records["key"] = keys
        with np.errstate(over="ignore"):  # a logit beyond float16 becomes inf, and is named below
            records["logits"] = logits
        bad = positions[~np.isfinite(records["logits"]).all(axis=(1, 2))]
        if len(bad):
            places = ", ".join(map(str, bad[:10])) + (", …" if len(bad) > 10 else "")
            raise UserError(
                f"the teacher's logits are NaN or inf as {self.dtype} for {len(bad)} of {len(keys)} examples, at "
                f"positions {places}; nothing of this shard was written. Run the teacher in float32, look at those "
                "examples" + (", or store float32." if self.dtype == "float16" else ".")
            )
        return records


CODECS = {"dense": Dense}
