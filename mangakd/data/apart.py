"""Queries and documents of pairs as sequences of their own, for models of late interaction (models/token_head.py).

Each different text is tokenised once, without special tokens, as for pairs that are read at once (pairs.py), and framed when it
is read. A batch holds each of its queries once, however many documents it has.
S pairs, Q queries of a batch, N texts, T tokens.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from mangakd.core.errors import UserError
from mangakd.data.notices import short
from mangakd.data.pairs import Template, Where, composed, mixed
from mangakd.data.token_files import Progress
from mangakd.data.tokenising import tokenise
from mangakd.data.tokens import Concatenation, Sequences, Tokens
from mangakd.models.late import Late
from mangakd.runtime.late import OWNER, QUERY, SCORED


@dataclass(frozen=True)
class Framed:
    """Texts between special tokens. texts: without them. places (N): positions in `texts`. sizes (N): tokens after truncation."""

    texts: Tokens
    places: np.ndarray
    sizes: np.ndarray
    template: Template

    def __len__(self) -> int:
        return len(self.places)

    def __getitem__(self, position: int) -> np.ndarray:
        return self.inputs(np.array([position]), 0)["input_ids"][0]

    @cached_property
    def lengths(self) -> np.ndarray:
        return self.sizes + self.template.special

    @cached_property
    def keys(self) -> np.ndarray:
        return mixed(self.template, self.texts.keys[self.places], self.sizes)

    def inputs(self, positions: np.ndarray, pad_id: int) -> dict[str, np.ndarray]:
        places = self.places[positions]
        return composed(self.texts, self.template, [places], [self.sizes[positions]], pad_id)


@dataclass(frozen=True)
class Augmentation:
    """What differs between the tokens of a text and those that its score reads, as of `Late`. skip: token ids."""

    length: int
    mask_id: int
    attend: bool
    skip: tuple[int, ...]

    @classmethod
    def of(cls, late: Late, tokenizer: Any) -> "Augmentation":
        """Raises UserError for a query_length with a tokenizer that has no mask token."""
        vocabulary, mask = tokenizer.get_vocab(), tokenizer.mask_token_id
        if late.query_length and mask is None:
            raise UserError(
                f"query_length={late.query_length} of late interaction adds mask tokens, and the tokenizer "
                f"{tokenizer.name_or_path} has none. Set interaction={{query_length: 0}} of this model."
            )
        return cls(
            late.query_length,
            mask or 0,
            late.attend,
            tuple(vocabulary[word] for word in late.skip if word in vocabulary),
        )

    def queries(self, inputs: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        """Of queries (Q, T), with mask tokens after those that are shorter than `length`."""
        mask = inputs["attention_mask"]
        own = mask.sum(1, keepdims=True)
        width = max(mask.shape[1], self.length if (own < self.length).any() else 0)
        inputs = {name: np.pad(each, ((0, 0), (0, width - mask.shape[1]))) for name, each in inputs.items()}
        columns = np.arange(width)
        added = (columns >= own) & (columns < self.length)
        scored = inputs["attention_mask"] + added
        attended = scored if self.attend else inputs["attention_mask"]
        ids = np.where(added, self.mask_id, inputs["input_ids"])
        return {**inputs, "input_ids": ids, "attention_mask": attended, SCORED: scored}

    def documents(self, inputs: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        return {**inputs, SCORED: inputs["attention_mask"] * ~np.isin(inputs["input_ids"], self.skip)}


@dataclass(frozen=True)
class Framing:
    """What stands around queries and documents, and which of their tokens count."""

    query: Template
    document: Template
    augmentation: Augmentation

    @classmethod
    def of(cls, late: Late, tokenizer: Any) -> "Framing":
        """Raises UserError for a prefix that is no token, and for a query_length with a tokenizer that has no mask token."""
        query, document = (Template.single(tokenizer, prefix) for prefix in (late.query_prefix, late.document_prefix))
        return cls(query, document, Augmentation.of(late, tokenizer))


@dataclass(frozen=True)
class Apart:
    """S pairs. queries, documents: the different ones. first, second (S): positions in them."""

    queries: Sequences
    documents: Sequences
    first: np.ndarray
    second: np.ndarray
    augmentation: Augmentation

    def __len__(self) -> int:
        return len(self.first)

    def __getitem__(self, position: int) -> np.ndarray:
        """The token ids of a pair's query, then of its document."""
        return np.concatenate([self.queries[self.first[position]], self.documents[self.second[position]]])

    @cached_property
    def lengths(self) -> np.ndarray:
        """(S) tokens of a pair's document: queries are short, and read once for all their documents."""
        return self.documents.lengths[self.second]

    @cached_property
    def keys(self) -> np.ndarray:
        """(S) int64: a hash of both texts' keys and of the augmentation."""
        return mixed(self.augmentation, self.queries.keys[self.first], self.documents.keys[self.second])

    def inputs(self, positions: np.ndarray, pad_id: int) -> dict[str, np.ndarray]:
        """Of the documents, (S, T). Of the different queries the same under QUERY, (Q, T), and the row of each pair's query."""
        different, owner = np.unique(self.first[positions], return_inverse=True)
        queries = self.augmentation.queries(self.queries.inputs(different, pad_id))
        documents = self.augmentation.documents(self.documents.inputs(self.second[positions], pad_id))
        return {**documents, **{f"{QUERY}{name}": each for name, each in queries.items()}, OWNER: owner.reshape(-1, 1)}

    @classmethod
    def joined(cls, parts: "Sequence[Apart]") -> "Apart":
        """The pairs of several parts, one after the other."""
        sides = {}
        for name, texts in (("first", "queries"), ("second", "documents")):
            starts = np.cumsum([0, *(len(getattr(part, texts)) for part in parts)])
            sides[name] = np.concatenate(
                [getattr(part, name) + start for part, start in zip(parts, starts, strict=False)]
            )
        queries, documents = (
            Concatenation([getattr(part, name) for part in parts]) for name in ("queries", "documents")
        )
        return cls(queries, documents, sides["first"], sides["second"], parts[0].augmentation)


def tokenise_apart(
    first: Sequence[str], second: Sequence[str], tokenizer: Any, late: Late | Framing, max_length: int, cache: Path | None = None,
    progress: Progress | None = None, where: Where = "pair {}".format,
) -> Apart:  # fmt: skip
    """Pair i of the query first[i] and the document second[i]. cache: None keeps nothing. Other arguments: see `tokenise_pairs`.

    Raises UserError for a query that is longer than max_length: documents alone are truncated.
    """
    framing = Framing.of(late, tokenizer) if isinstance(late, Late) else late
    frames = [framing.query, framing.document]
    different = list(dict.fromkeys([*first, *second]))
    place = {text: i for i, text in enumerate(different)}
    texts = tokenise(different, tokenizer, max_length, cache, progress, special=False)
    sides = [
        np.unique(np.fromiter(map(place.__getitem__, side), np.int64, len(side)), return_inverse=True)
        for side in (first, second)
    ]
    (queries, of_query), (documents, of_document) = sides
    rooms = [max_length - frame.special for frame in frames]
    long = texts.lengths[queries] > min(rooms[0], max_length - 1)  # max_length tokens may be all that is left of more
    if long.any():
        pair = int(np.flatnonzero(long[of_query])[0])
        raise UserError(
            f"{where(pair)}: {short(first[pair])} has {texts.lengths[queries[of_query[pair]]]} tokens or more, special tokens "
            f"take {frames[0].special}, and data.max_length={max_length}. A query is never truncated. Shorten it, or raise "
            "data.max_length."
        )
    sizes = [np.minimum(texts.lengths[own], room) for own, room in zip((queries, documents), rooms, strict=True)]
    framed = [
        Framed(texts, own, size, frame) for own, size, frame in zip((queries, documents), sizes, frames, strict=True)
    ]
    return Apart(framed[0], framed[1], of_query, of_document, framing.augmentation)
