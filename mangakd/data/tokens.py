"""`Tokens`: the token ids of many texts, memory-mapped, and a content key for each text.

The key, a hash of the token ids, is how the store of teacher outputs finds its records: it does not depend on the order,
the batch or the world size, and it changes with the tokenizer, the truncation and the text.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np


class Ids(Protocol):
    """What `Tokens` needs of an int32 array: its values at some positions."""

    def __len__(self) -> int: ...

    def __getitem__(self, positions: np.ndarray, /) -> np.ndarray: ...


@dataclass(frozen=True)
class Tokens:
    """Text i is ids[starts[i] : starts[i] + lengths[i]]; other data may lie between two texts.

    starts, lengths, keys: (N) int64. types: (N) int64, where in `ids` a text's token_type_ids begin; None where all are 0.
    """

    ids: Ids
    starts: np.ndarray
    lengths: np.ndarray
    keys: np.ndarray
    types: np.ndarray | None = None

    def __len__(self) -> int:
        return len(self.keys)

    def __getitem__(self, position: int) -> np.ndarray:
        """The token ids of one text."""
        return self.ids[self.starts[position] + np.arange(self.lengths[position])]

    def inputs(self, positions: np.ndarray, pad_id: int) -> dict[str, np.ndarray]:
        """input_ids, attention_mask, and token_type_ids if there are any; each (B, T) int64, T the longest of these texts."""
        lengths = self.lengths[positions]
        columns = np.arange(lengths.max())
        mask = columns < lengths[:, None]
        inputs = {"input_ids": self._padded(self.starts[positions], columns, mask, pad_id)}
        inputs["attention_mask"] = mask.astype(np.int64)
        if self.types is not None:
            inputs["token_type_ids"] = self._padded(self.types[positions], columns, mask, 0)
        return inputs

    def _padded(self, starts: np.ndarray, columns: np.ndarray, mask: np.ndarray, fill: int) -> np.ndarray:
        values = np.full(mask.shape, fill, dtype=np.int64)
        values[mask] = self.ids[(starts[:, None] + columns)[mask]]
        return values


class _Joined:
    """Several arrays addressed as if they were one, because copying memory-mapped arrays would read them into memory."""

    def __init__(self, arrays: Sequence[Ids]) -> None:
        self._arrays = arrays
        self.ends = np.cumsum([len(array) for array in arrays])

    def __len__(self) -> int:
        return int(self.ends[-1])

    def __getitem__(self, positions: np.ndarray) -> np.ndarray:
        values, owners = np.empty(positions.shape, np.int32), np.searchsorted(self.ends, positions, side="right")
        for number, array in enumerate(self._arrays):
            own = owners == number
            values[own] = array[positions[own] - (self.ends[number] - len(array))]
        return values


def concatenated(parts: Sequence[Tokens]) -> Tokens:
    """The texts of several `Tokens` of one tokenizer, one after the other."""
    ids = _Joined([part.ids for part in parts])
    moves = ids.ends - [len(part.ids) for part in parts]
    types = [part.types + move for part, move in zip(parts, moves, strict=True) if part.types is not None]
    return Tokens(
        ids,
        np.concatenate([part.starts + move for part, move in zip(parts, moves, strict=True)]),
        np.concatenate([part.lengths for part in parts]),
        np.concatenate([part.keys for part in parts]),
        np.concatenate(types) if types else None,
    )
