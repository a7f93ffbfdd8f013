"""`Sequences`: what models read, with a content key each. `Tokens` are those of many texts, memory-mapped.

The key, a hash of the token ids, is how the store of teacher outputs finds its records: it does not depend on the order,
the batch or the world size, and it changes with the tokenizer, the truncation, the text and the target tokens.

Sequences of a language model hold `targets`, the tokens that are learnt: (T) bool, False at position 0, which no state predicts,
and in padding.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np


class Ids(Protocol):
    """What `Tokens` needs of an int32 array: its values at some positions."""

    def __len__(self) -> int: ...

    def __getitem__(self, positions: np.ndarray, /) -> np.ndarray: ...


class Sequences(Protocol):
    """The sequences of N texts or pairs of texts. lengths (N): their tokens. keys (N) int64: see above."""

    @property
    def lengths(self) -> np.ndarray: ...

    @property
    def keys(self) -> np.ndarray: ...

    def __len__(self) -> int: ...

    def __getitem__(self, position: int, /) -> np.ndarray:
        """The token ids of one sequence."""

    def inputs(self, positions: np.ndarray, pad_id: int, /) -> dict[str, np.ndarray]:
        """input_ids, attention_mask, and token_type_ids if there are any; each (B, T) int64, T the longest of these.

        targets, (B, T) bool, if the sequences have target tokens.
        """


@dataclass(frozen=True)
class Tokens:
    """Text i is ids[starts[i] : starts[i] + lengths[i]]; other data may lie between two texts.

    starts, lengths, keys: (N) int64. types: (N) int64, where in `ids` a text's token_type_ids begin; None where all are 0.
    targets: the same of 0 and 1 for target tokens; None for texts without them.
    """

    ids: Ids
    starts: np.ndarray
    lengths: np.ndarray
    keys: np.ndarray
    types: np.ndarray | None = None
    targets: np.ndarray | None = None

    def __len__(self) -> int:
        return len(self.keys)

    def __getitem__(self, position: int) -> np.ndarray:
        """The token ids of one text."""
        return self.ids[self.starts[position] + np.arange(self.lengths[position])]

    def inputs(self, positions: np.ndarray, pad_id: int) -> dict[str, np.ndarray]:
        """See `Sequences`."""
        lengths = self.lengths[positions]
        columns = np.arange(lengths.max())
        mask = columns < lengths[:, None]
        inputs = {"input_ids": self._padded(self.starts[positions], columns, mask, pad_id)}
        inputs["attention_mask"] = mask.astype(np.int64)
        if self.types is not None:
            inputs["token_type_ids"] = self._padded(self.types[positions], columns, mask, 0)
        if self.targets is not None:
            inputs["targets"] = self._padded(self.targets[positions], columns, mask, 0).astype(bool)
        return inputs

    def _padded(self, starts: np.ndarray, columns: np.ndarray, mask: np.ndarray, fill: int) -> np.ndarray:
        values = np.full(mask.shape, fill, dtype=np.int64)
        values[mask] = self.ids[(starts[:, None] + columns)[mask]]
        return values


class Selection:
    """Some sequences of another, in any order and any number of times each."""

    def __init__(self, source: Sequences, positions: np.ndarray) -> None:
        self._source, self._positions = source, positions
        self.lengths, self.keys = source.lengths[positions], source.keys[positions]

    def __len__(self) -> int:
        return len(self.keys)

    def __getitem__(self, position: int) -> np.ndarray:
        return self._source[int(self._positions[position])]

    def inputs(self, positions: np.ndarray, pad_id: int) -> dict[str, np.ndarray]:
        return self._source.inputs(self._positions[positions], pad_id)


class Concatenation:
    """The sequences of several parts, one after the other. Copying memory-mapped arrays would read them into memory."""

    def __init__(self, parts: Sequence[Sequences]) -> None:
        self._parts = parts
        self._ends = np.cumsum([len(part) for part in parts])
        self.lengths = np.concatenate([part.lengths for part in parts])
        self.keys = np.concatenate([part.keys for part in parts])

    def __len__(self) -> int:
        return len(self.keys)

    def __getitem__(self, position: int) -> np.ndarray:
        return self.inputs(np.array([position]), 0)["input_ids"][0]

    def inputs(self, positions: np.ndarray, pad_id: int) -> dict[str, np.ndarray]:
        owners = np.searchsorted(self._ends, positions, side="right")
        shape = (len(positions), self.lengths[positions].max())
        inputs: dict[str, np.ndarray] = {}
        for owner in np.unique(owners):
            rows, part = np.flatnonzero(owners == owner), self._parts[owner]
            for name, values in part.inputs(positions[rows] - self._ends[owner] + len(part), pad_id).items():
                fill = pad_id if name == "input_ids" else 0
                inputs.setdefault(name, np.full(shape, fill, dtype=values.dtype))[rows, : values.shape[1]] = values
        return inputs
