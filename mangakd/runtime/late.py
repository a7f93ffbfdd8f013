"""What an exported student of late interaction reads: a query and a document apart, each between its own special tokens.

data/apart.py makes the same for training, and these are the names of its arrays.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

VECTORS = "vectors"  # the model's output (B, T, D): a vector of length 1 for each token
QUERY = "query_"  # begins the names of what a batch says of its Q queries
OWNER, SCORED = "query", "scored"  # (S, 1): the row of each pair's query. (S, T): tokens that the score reads


@dataclass(frozen=True)
class Frame:
    """Special tokens around a text. types: token_type_ids of those before, of the text (one number), and of those after."""

    before: tuple[int, ...]
    after: tuple[int, ...]
    types: tuple[int, ...]

    def __post_init__(self) -> None:
        for name in ("before", "after", "types"):
            object.__setattr__(self, name, _numbers(getattr(self, name), name))
        if len(self.types) != self.special + 1:
            raise ValueError("types of other tokens")

    @property
    def special(self) -> int:
        return len(self.before) + len(self.after)

    def around(self, ids: Sequence[int]) -> tuple[list[int], list[int]]:
        """Token ids and token_type_ids."""
        start = len(self.before)
        types = [*self.types[:start], *[self.types[start]] * len(ids), *self.types[start + 1 :]]
        return [*self.before, *ids, *self.after], types


@dataclass(frozen=True)
class Late:
    """As `Late` of models/late.py, in token ids: a query of fewer than `query_length` tokens gets mask tokens up to it, which
    count; `attend` says whether the others see them. skip: tokens of a document that do not count."""

    query: Frame
    document: Frame
    query_length: int
    mask_id: int
    attend: bool
    skip: tuple[int, ...]

    def __post_init__(self) -> None:
        object.__setattr__(self, "skip", _numbers(self.skip, "skip"))
        _numbers((self.query_length, self.mask_id), "query_length, mask_id")
        if not isinstance(self.attend, bool):
            raise TypeError("attend")

    @classmethod
    def read(cls, content: Mapping[str, Any]) -> "Late":
        """From JSON, where it was written as `asdict(late)`. Raises KeyError, TypeError or ValueError for what is none."""
        return cls(**{**content, "query": Frame(**content["query"]), "document": Frame(**content["document"])})


def _numbers(values: Any, name: str) -> tuple[int, ...]:
    if not isinstance(values, list | tuple) or any(type(value) is not int or value < 0 for value in values):
        raise TypeError(name)
    return tuple(values)
