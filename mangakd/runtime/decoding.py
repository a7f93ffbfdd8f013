"""What an exported encoder–decoder consists of: two model files, names of what passes between them, how a text begins and ends.

    encoder   input_ids, attention_mask                       → the keys and values of cross-attention, computed once a text
    decoder   input_ids (B, 1), attention_mask, those, past   → logits (B, V), and the past with this token

Keys and values are (B, heads, tokens, size) in float32, one pair for each layer of the decoder.
"""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

LOGITS, TOKENS = "logits", "tokens"  # outputs of the decoder's file, and of the student
SOURCE = ("input_ids", "attention_mask")
BLANK = -1  # in a row of token ids, after the end of its text


@dataclass(frozen=True)
class Decoding:
    """model: the decoder's file. layers: of the decoder, with `heads` keys of `size` numbers each.

    start: the token before the first written token. stops: tokens that end a text. vocabulary: ids from here on belong to no
    token and are never written. max_new_tokens: a text ends here if the model has not ended it.
    """

    model: str
    layers: int
    heads: int
    size: int
    start: int
    stops: tuple[int, ...]
    vocabulary: int
    max_new_tokens: int

    def __post_init__(self) -> None:
        numbers = (self.layers, self.heads, self.size, self.vocabulary, self.max_new_tokens)
        if any(type(number) is not int or number < 1 for number in numbers):
            raise ValueError(f"{numbers} must be whole numbers from 1 on")
        if any(type(token) is not int or token < 0 for token in (self.start, *self.stops)):
            raise ValueError("a token is no whole number from 0 on")

    @classmethod
    def read(cls, entry: Mapping[str, Any]) -> "Decoding":
        """From the manifest. Raises KeyError, TypeError or ValueError for what is none."""
        if not isinstance(entry["model"], str):
            raise TypeError("model is no file name")
        return cls(**{**entry, "stops": tuple(entry["stops"])})

    def entry(self) -> dict[str, Any]:
        """For the manifest."""
        return {**asdict(self), "stops": list(self.stops)}

    @property
    def crossed(self) -> list[str]:
        """Names of the encoder's outputs."""
        return self._names("cross")

    @property
    def past(self) -> list[str]:
        return self._names("past")

    @property
    def inputs(self) -> list[str]:
        """Of the decoder's file."""
        return [*SOURCE, *self.crossed, *self.past]

    @property
    def outputs(self) -> list[str]:
        """Of the decoder's file."""
        return [LOGITS, *self._names("present")]

    def _names(self, kind: str) -> list[str]:
        return [f"{kind}_{part}_{layer}" for layer in range(self.layers) for part in ("key", "value")]
