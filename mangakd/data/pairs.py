"""Pairs of texts as sequences of one model: each different text is tokenised once, and a pair is composed when it is read.

A ranker reads a query together with each of its documents, and a document belongs to many queries. So the cache holds the
tokens of the texts alone, and a pair is two positions in it. How the tokenizer frames a pair (special tokens, their order,
token_type_ids) comes from a trial, because post-processors of every kind do it in their own way.
S pairs, B pairs of a batch, T tokens.
"""

import hashlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import astuple, dataclass
from functools import cached_property
from itertools import groupby
from pathlib import Path
from typing import Any

import numpy as np

from mangakd.core.errors import UserError
from mangakd.data.notices import short
from mangakd.data.tokenising import Progress, tokenise
from mangakd.data.tokens import Tokens

Where = Callable[[int], str]


@dataclass(frozen=True)
class Piece:
    """A part of a pair: all tokens of text 0 or 1, or else one special token. type: its token_type_id."""

    text: int | None
    token: int
    type: int


@dataclass(frozen=True)
class Template:
    """How a tokenizer joins two texts. typed: whether models that it belongs to read token_type_ids, and not all are 0.

    from_left: whether truncation removes the first tokens and not the last.
    """

    pieces: tuple[Piece, ...]
    typed: bool
    from_left: bool

    @classmethod
    def of(cls, tokenizer: Any) -> "Template":
        """Raises UserError for a tokenizer that does not hold two texts beside each other."""
        text = _any_text(tokenizer)
        (encoding,) = tokenizer(text, text).encodings
        tokens = enumerate(zip(encoding.sequence_ids, encoding.ids, encoding.type_ids, strict=True))
        # Tokens of a text are one piece, each special token is one of its own.
        runs = groupby(tokens, key=lambda entry: (entry[1][0], None if entry[1][0] is not None else entry[0]))
        pieces = tuple(Piece(*next(run)[1]) for _, run in runs)
        texts = [piece.text for piece in pieces if piece.text is not None]
        if sorted(texts) != [0, 1] or sum(encoding.special_tokens_mask) != len(pieces) - 2:
            raise UserError(
                f"the tokenizer {tokenizer.name_or_path} makes {encoding.tokens} of a pair of texts, in which mangakd does not "
                "find each text once. Use a model whose tokenizer joins two texts, such as BERT's."
            )
        typed = "token_type_ids" in tokenizer.model_input_names and any(piece.type for piece in pieces)
        return cls(pieces, typed, tokenizer.truncation_side == "left")

    @property
    def special(self) -> int:
        """The number of special tokens."""
        return len(self.pieces) - 2


def _any_text(tokenizer: Any) -> str:
    """A text that has tokens, also where the vocabulary has no token for unknown words."""

    def candidates() -> Iterator[str]:
        yield "a text"
        yield from sorted(tokenizer.get_vocab())

    return next(text for text in candidates() if tokenizer(text, add_special_tokens=False)["input_ids"])


@dataclass(frozen=True)
class Pairs:
    """Sequences like those of `Tokens`, each of two texts. texts: the different texts, without special tokens.

    first, second (S): positions in `texts`. second_lengths (S): tokens of the second text after truncation.
    """

    texts: Tokens
    first: np.ndarray
    second: np.ndarray
    second_lengths: np.ndarray
    template: Template

    def __len__(self) -> int:
        return len(self.first)

    def __getitem__(self, position: int) -> np.ndarray:
        return self.inputs(np.array([position]), 0)["input_ids"][0]

    @cached_property
    def lengths(self) -> np.ndarray:
        """(S) tokens of a pair."""
        return self.texts.lengths[self.first] + self.second_lengths + self.template.special

    @cached_property
    def keys(self) -> np.ndarray:
        """(S) int64: a hash of both texts' keys, the tokens that are left of the second, and the template."""
        frame = hashlib.blake2b(repr(astuple(self.template)).encode(), digest_size=8).digest()
        key = np.frombuffer(frame, np.uint64)
        for part in (self.texts.keys[self.first], self.texts.keys[self.second], self.second_lengths):
            key = _mix(key ^ part.astype(np.uint64))
        return key.view(np.int64)

    def inputs(self, positions: np.ndarray, pad_id: int) -> dict[str, np.ndarray]:
        """As of `Tokens`: input_ids, attention_mask, and token_type_ids if there are any; each (B, T) int64."""
        sizes = {0: self.texts.lengths[self.first[positions]], 1: self.second_lengths[positions]}
        starts = {0: self.texts.starts[self.first[positions]], 1: self.texts.starts[self.second[positions]]}
        if self.template.from_left:
            starts[1] = starts[1] + self.texts.lengths[self.second[positions]] - sizes[1]
        lengths = sizes[0] + sizes[1] + self.template.special
        columns = np.arange(lengths.max())
        shape = (len(positions), len(columns))
        ids, types = np.full(shape, pad_id, dtype=np.int64), np.zeros(shape, dtype=np.int64)
        begins = np.zeros_like(lengths)
        for piece in self.template.pieces:
            size = 1 if piece.text is None else sizes[piece.text]
            here = (columns >= begins[:, None]) & (columns < (begins + size)[:, None])
            types[here] = piece.type
            if piece.text is None:
                ids[here] = piece.token
            else:
                ids[here] = self.texts.ids[((starts[piece.text] - begins)[:, None] + columns)[here]]
            begins = begins + size
        inputs = {"input_ids": ids, "attention_mask": (columns < lengths[:, None]).astype(np.int64)}
        return {**inputs, "token_type_ids": types} if self.template.typed else inputs


def _mix(key: np.ndarray) -> np.ndarray:
    """splitmix64's finaliser, a bijection in which each bit of the input changes half of the output's. Source: Steele,
    Lea and Flood 2014, doi:10.1145/2660193.2660195."""
    key = key + np.uint64(0x9E3779B97F4A7C15)
    key = (key ^ (key >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    key = (key ^ (key >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return key ^ (key >> np.uint64(31))


def tokenise_pairs(
    first: Sequence[str],
    second: Sequence[str],
    tokenizer: Any,
    max_length: int,
    cache: Path,
    progress: Progress | None = None,
    where: Where = "pair {}".format,
) -> Pairs:
    """Pair i of first[i] and second[i], as the tokenizer reads it with truncation="only_second".

    where: place of a pair → such as `line 3 of data.path=train.jsonl`, for messages. Raises UserError for a first text that
    leaves no room for a token of the second in max_length. Other arguments: see `tokenise`.
    """
    template = Template.of(tokenizer)
    different = list(dict.fromkeys([*first, *second]))
    place = {text: i for i, text in enumerate(different)}
    texts = tokenise(different, tokenizer, max_length, cache, progress, special=False)
    firsts, seconds = (np.fromiter(map(place.__getitem__, side), np.int64, len(side)) for side in (first, second))
    room = max_length - template.special - texts.lengths[firsts]
    if (full := np.flatnonzero(room < 1)).size:
        raise UserError(
            f"{where(int(full[0]))}: {short(first[full[0]])} leaves no room for a second text: it has "
            f"{texts.lengths[firsts[full[0]]]} tokens or more, special tokens take {template.special}, and "
            f"data.max_length={max_length}. Only the second text is truncated. Shorten the first, or raise data.max_length."
        )
    return Pairs(texts, firsts, seconds, np.minimum(texts.lengths[seconds], room), template)
