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
from mangakd.data.token_files import Progress
from mangakd.data.tokenising import tokenise
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
    """How a tokenizer frames one text, or joins two. typed: whether models that it belongs to read token_type_ids, and not all
    are 0.

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

    @classmethod
    def single(cls, tokenizer: Any, prefix: str = "") -> "Template":
        """Of one text. prefix: a token of the vocabulary that stands before it. Raises UserError for one that is none."""
        (encoding,) = tokenizer(_any_text(tokenizer)).encodings
        tokens = list(zip(encoding.sequence_ids, encoding.ids, encoding.type_ids, strict=True))
        own = [i for i, (text, _, _) in enumerate(tokens) if text is not None]
        pieces = [Piece(None, *entry[1:]) for entry in tokens]
        pieces[own[0] : own[-1] + 1] = [Piece(0, *tokens[own[0]][1:])]
        if prefix:
            if (token := tokenizer.get_vocab().get(prefix)) is None:
                raise UserError(
                    f"the prefix {prefix!r} of late interaction is no token of the tokenizer {tokenizer.name_or_path}. Set "
                    'query_prefix and document_prefix to tokens that it has, such as [unused0], or to "".'
                )
            pieces.insert(own[0], Piece(None, token, pieces[own[0]].type))
        typed = "token_type_ids" in tokenizer.model_input_names and any(piece.type for piece in pieces)
        return cls(tuple(pieces), typed, tokenizer.truncation_side == "left")

    @property
    def special(self) -> int:
        """The number of special tokens."""
        return sum(piece.text is None for piece in self.pieces)


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
        return mixed(self.template, self.texts.keys[self.first], self.texts.keys[self.second], self.second_lengths)

    def inputs(self, positions: np.ndarray, pad_id: int) -> dict[str, np.ndarray]:
        """As of `Tokens`: input_ids, attention_mask, and token_type_ids if there are any; each (B, T) int64."""
        first, second = self.first[positions], self.second[positions]
        sizes = [self.texts.lengths[first], self.second_lengths[positions]]
        return composed(self.texts, self.template, [first, second], sizes, pad_id)


def composed(
    texts: Tokens, template: Template, places: Sequence[np.ndarray], sizes: Sequence[np.ndarray], pad_id: int
) -> dict[str, np.ndarray]:
    """Inputs of B sequences. places, sizes: for each text of the template, its positions in `texts` (B) and its tokens that are
    left (B)."""
    starts = [texts.starts[each] for each in places]
    if template.from_left:
        starts = [start + texts.lengths[each] - size for start, each, size in zip(starts, places, sizes, strict=True)]
    lengths = np.sum(sizes, axis=0) + template.special
    columns = np.arange(lengths.max())
    shape = (len(lengths), len(columns))
    ids, types = np.full(shape, pad_id, dtype=np.int64), np.zeros(shape, dtype=np.int64)
    begins = np.zeros_like(lengths)
    for piece in template.pieces:
        size = 1 if piece.text is None else sizes[piece.text]
        here = (columns >= begins[:, None]) & (columns < (begins + size)[:, None])
        types[here] = piece.type
        if piece.text is None:
            ids[here] = piece.token
        else:
            ids[here] = texts.ids[((starts[piece.text] - begins)[:, None] + columns)[here]]
        begins = begins + size
    inputs = {"input_ids": ids, "attention_mask": (columns < lengths[:, None]).astype(np.int64)}
    return {**inputs, "token_type_ids": types} if template.typed else inputs


def mixed(frame: Any, *parts: np.ndarray) -> np.ndarray:
    """(N) int64: a hash of the entries of all parts (N) and of a dataclass."""
    key = np.frombuffer(hashlib.blake2b(repr(astuple(frame)).encode(), digest_size=8).digest(), np.uint64)
    for part in parts:
        key = _mix(key ^ part.astype(np.uint64))
    return key.view(np.int64)


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
