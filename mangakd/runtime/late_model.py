"""Late interaction without torch: pairs become queries and documents of their own, and token vectors become scores.

    score = Σ_i max_j q_i · d_j                           i: tokens of the query that count, j: of the document

A document without such a token gets -1, the least cosine, for each token of the query. models/token_head.py is the same in torch.
S pairs, Q queries, T tokens, D dimensions.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from tokenizers import Encoding

from mangakd.core.errors import UserError
from mangakd.runtime.late import OWNER, QUERY, SCORED, Late
from mangakd.runtime.manifest import Manifest
from mangakd.runtime.tokenise import Tokeniser, TurnsTokeniser, whole

Arrays = dict[str, np.ndarray]
Run = Callable[[Arrays], np.ndarray]


def reader_of(manifest: Manifest) -> Tokeniser:
    """What turns the texts that a student is asked about into its arrays."""
    if manifest.turns is not None:
        return TurnsTokeniser(manifest, manifest.turns)
    return Tokeniser.of(manifest) if manifest.late is None else LateTokeniser(manifest, manifest.late)


@dataclass(frozen=True)
class Tokens:
    """Of one query or document, its special tokens included. scored: 1 for those that the score reads."""

    ids: list[int]
    type_ids: list[int]
    attention_mask: list[int]
    scored: list[int]

    def __len__(self) -> int:
        return len(self.ids)


@dataclass(frozen=True)
class Pair:
    """Its length is the document's: documents are grouped by length, and a query is read once for all its documents.

    overflowing: whether the document was cut.
    """

    query: Tokens
    document: Tokens
    overflowing: bool

    def __len__(self) -> int:
        return len(self.document)


class LateTokeniser(Tokeniser):
    """Pairs → queries and documents → arrays of documents (S, T), and of the different queries under QUERY (Q, T).

    Raises UserError for a length that has no room for a text.
    """

    def __init__(self, manifest: Manifest, late: Late) -> None:
        super().__init__(
            manifest.tokenizer, manifest.max_length, manifest.pad_id, manifest.pad_type_id, manifest.truncation_side
        )
        self._late, self._skip, self._left = late, frozenset(late.skip), manifest.truncation_side == "left"
        self._room = manifest.max_length - late.document.special
        self._longest = min(manifest.max_length - late.query.special, manifest.max_length - 1)
        if min(self._room, self._longest) < 1:
            raise UserError(
                f"max_length {manifest.max_length} of {manifest.folder} is too small for a text between its special tokens."
            )

    def __call__(self, texts: Sequence[tuple[str, str]]) -> list[Pair]:  # type: ignore[override]
        """Raises UserError for a query that is too long."""
        encodings = self._encodings([text for pair in texts for text in pair])
        queries = {query: self._query(encodings[query]) for query in dict.fromkeys(pair[0] for pair in texts)}
        return [self._pair(queries[query], encodings[document]) for query, document in texts]

    def check_query(self, query: str) -> None:
        self._query(self._encodings([query])[query])

    def pad(self, pairs: Sequence[Pair], inputs: Sequence[str]) -> Arrays:  # type: ignore[override]
        queries = list({id(pair.query): pair.query for pair in pairs}.values())
        rows = {id(query): row for row, query in enumerate(queries)}
        arrays = {f"{QUERY}{name}": each for name, each in self._padded(queries, inputs).items()}
        owner = np.array([[rows[id(pair.query)]] for pair in pairs])
        return {**self._padded([pair.document for pair in pairs], inputs), **arrays, OWNER: owner}

    def _encodings(self, texts: Sequence[str]) -> dict[str, Encoding]:
        different = list(dict.fromkeys(texts))
        encodings = self._tokenizer.encode_batch_fast(list(map(whole, different)), add_special_tokens=False)
        return dict(zip(different, encodings, strict=True))

    def _query(self, encoding: Encoding) -> Tokens:
        if encoding.overflowing or len(encoding) > self._longest:
            raise UserError(
                f"the query has more than {self._longest} tokens, which is all that this student reads between special tokens, "
                "and a query is never cut. Shorten it."
            )
        ids, types = self._late.query.around(encoding.ids)
        added = max(0, self._late.query_length - len(ids))
        mask = [1] * len(ids) + [int(self._late.attend)] * added
        return Tokens([*ids, *[self._late.mask_id] * added], [*types, *[0] * added], mask, [1] * len(mask))

    def _pair(self, query: Tokens, document: Encoding) -> Pair:
        text = document.ids
        ids, types = self._late.document.around(text[-self._room :] if self._left else text[: self._room])
        scored = [int(token not in self._skip) for token in ids]
        cut = bool(document.overflowing) or len(text) > self._room
        return Pair(query, Tokens(ids, types, [1] * len(ids), scored), cut)

    def _padded(self, texts: Sequence[Tokens], inputs: Sequence[str]) -> Arrays:
        arrays = super().pad(texts, inputs)  # type: ignore[arg-type]
        scored = np.zeros_like(arrays["input_ids"])
        for row, text in enumerate(texts):
            scored[row, : len(text)] = text.scored
        return {**arrays, SCORED: scored}


@dataclass(frozen=True)
class LateRun:
    """Arrays of `LateTokeniser.pad` → scores (S, 1). graph: arrays → token vectors (B, T, D).

    known: token ids → the vectors of a query; each call has its own unless it is given.
    """

    graph: Run
    known: dict[bytes, np.ndarray] | None = None

    def __call__(self, arrays: Arrays) -> np.ndarray:
        queries, owner, scored = self._queries(arrays), arrays[OWNER][:, 0], arrays[SCORED].astype(bool)
        own = {name: each for name, each in arrays.items() if not name.startswith(QUERY)}
        documents = self.graph({name: each for name, each in own.items() if name not in (OWNER, SCORED)})
        scores = np.empty((len(owner), 1), dtype=np.float32)
        for row, query in enumerate(queries):
            here = owner == row
            scores[here, 0] = max_sim(query, documents[here], scored[here])
        return scores

    def _queries(self, arrays: Arrays) -> list[np.ndarray]:
        """The vectors that count, (T, D) of each query."""
        own = {name.removeprefix(QUERY): each for name, each in arrays.items() if name.startswith(QUERY)}
        scored = own.pop(SCORED).astype(bool)
        keys = [ids[counts].tobytes() for ids, counts in zip(own["input_ids"], scored, strict=True)]
        known = {} if self.known is None else self.known
        if new := [row for row, key in enumerate(keys) if key not in known]:
            vectors = self.graph({name: each[new] for name, each in own.items()})
            known.update({keys[row]: each[scored[row]] for row, each in zip(new, vectors, strict=True)})
        return [known[key] for key in keys]


def once(run: Run) -> Run:
    """The same, which reads each query once in all its calls together."""
    return LateRun(run.graph, {}) if isinstance(run, LateRun) else run


def max_sim(query: np.ndarray, documents: np.ndarray, scored: np.ndarray) -> np.ndarray:
    """Scores (S). query: (T, D). documents: (S, T, D). scored: the tokens of documents that count, (S, T) bool."""
    cosines = documents @ query.T
    best = np.where(scored[:, :, None], cosines, -np.inf).max(axis=1)
    return np.where(scored.any(axis=1, keepdims=True), best, -1.0).sum(axis=1, dtype=np.float32)
