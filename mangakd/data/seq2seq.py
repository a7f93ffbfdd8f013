"""Rows of a source and a target as cached tokens: of each row one sequence, the source's tokens and then the target's.

A source is the turns of a conversation, of which the last is the text that the target belongs to. A source that is too long loses
its oldest turns, one after the other, and never its last one. Source and target are framed as the tokenizer frames a text, and
the target ends with the EOS token. So the tokens of a source are those that the served student reads.
"""

import hashlib
import json
import logging
from array import array
from bisect import bisect_left
from collections.abc import Callable, Iterator, Sequence
from dataclasses import astuple, dataclass
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from tokenizers import Tokenizer

from mangakd.core import cpu
from mangakd.core.errors import UserError
from mangakd.core.outputs import TARGETS
from mangakd.data.ahead import ahead
from mangakd.data.notices import Notices, short
from mangakd.data.rows import Rows
from mangakd.data.token_files import Part, Progress, cached_file
from mangakd.data.tokens import Selection, Sequences
from mangakd.models.load import vocabulary_digest
from mangakd.runtime.tokenise import whole
from mangakd.runtime.turns import TURNS, Turns

log = logging.getLogger(__name__)
_FORMAT, _CHUNK = 1, 64
CUT, LONG_SOURCE, LONG_TARGET = (1 << bit for bit in range(3))
_NOTICES = {
    CUT: "sources that do not fit into data.max_length={source} and lose old turns",
    LONG_SOURCE: "sources whose last turn alone does not fit into data.max_length={source}, left out",
    LONG_TARGET: "targets that do not fit into task.max_target_length={target}, left out",
}


@dataclass(frozen=True)
class SourceOptions:
    """separator: between turns. template: of the whole source, with {turns} in it. max_target_length: tokens, EOS included.

    Raises UserError for an option outside its range.
    """

    separator: str = " ||| "
    template: str = TURNS
    max_target_length: int = 64

    def __post_init__(self) -> None:
        if self.template.count(TURNS) != 1:
            raise UserError(f"task.template={self.template!r} must hold {TURNS} once, where the turns are written.")
        if not isinstance(self.max_target_length, int) or self.max_target_length < 2:
            raise UserError(
                f"task.max_target_length={self.max_target_length} must be a whole number from 2 on: a token and EOS."
            )

    @property
    def turns(self) -> Turns:
        """As the served student joins them."""
        return Turns(self.separator, self.template)

    def text(self, turns: Sequence[str]) -> str:
        """A source as the model reads it. Blank turns are left out."""
        return self.turns.text(turns)


class Pair(NamedTuple):
    """turns: the oldest first. owner: the place of its row."""

    turns: tuple[str, ...]
    target: str
    owner: int


@dataclass(frozen=True)
class Pairs:
    """S sequences. owners (S): the place of each one's row. targets (S): the number of its target tokens."""

    tokens: Sequences
    owners: np.ndarray
    targets: np.ndarray


class Reader:
    """Sources and targets → token ids. max_length: of a source. Raises UserError for a tokenizer without an EOS token."""

    def __init__(self, tokenizer: Any, options: SourceOptions, max_length: int) -> None:
        self._options, self._most, self._end = options, max_length, end_of(tokenizer)
        self._tokenizer = Tokenizer.from_str(tokenizer.backend_tokenizer.to_str())
        self._tokenizer.no_truncation()
        self._tokenizer.no_padding()
        self._tokenizer.encode_special_tokens = tokenizer.split_special_tokens

    def source(self, turns: Sequence[str]) -> tuple[list[int], int]:
        """(the tokens of the turns that fit, a note). The tokens are too many where the last turn alone does not fit."""
        turns = [turn for turn in turns if turn.strip()]
        ids = self._since(turns, 0)
        if len(ids) <= self._most:
            return ids, 0
        first = bisect_left(range(1, len(turns)), True, key=lambda k: len(self._since(turns, k)) <= self._most) + 1
        return (self._since(turns, first), CUT) if first < len(turns) else (ids, LONG_SOURCE)

    def target(self, text: str) -> tuple[list[int], int]:
        ids = self._read(text)
        if ids[-1:] != [self._end]:
            ids = [*ids, self._end]
        return ids, LONG_TARGET if len(ids) > self._options.max_target_length else 0

    def _since(self, turns: Sequence[str], first: int) -> list[int]:
        return self._read(self._options.text(turns[first:]))

    def _read(self, text: str) -> list[int]:
        ids: list[int] = self._tokenizer.encode(whole(text)).ids
        return ids


def end_of(tokenizer: Any) -> int:
    """The EOS token. Raises UserError for a tokenizer without EOS or padding token of its own."""
    if tokenizer.eos_token_id is None:
        raise UserError(
            f"the tokenizer {tokenizer.name_or_path} has no EOS token, with which a target ends: set eos_token in its "
            "tokenizer_config.json."
        )
    if tokenizer.pad_token_id in (None, tokenizer.eos_token_id):
        raise UserError(
            f"the tokenizer {tokenizer.name_or_path} has no padding token of its own, from which an encoder–decoder starts to "
            "write: set pad_token in its tokenizer_config.json to a token that is not EOS."
        )
    end: int = tokenizer.eos_token_id
    return end


def tokenise_targets(
    pairs: Sequence[Pair], rows: Rows, tokenizer: Any, options: SourceOptions, max_length: int, cache: Path,
    progress: Progress | None = None,
) -> Pairs:  # fmt: skip
    """rows: those that own the pairs. max_length: of a source. Other arguments: see `tokenise`.

    Says how long sources and targets are, and warns of what is cut or left out. Raises UserError where no pair is left.
    """
    content = [_FORMAT, vocabulary_digest(tokenizer), tokenizer.split_special_tokens, max_length, *astuple(options)]
    digest = hashlib.sha256(json.dumps(content).encode())
    for pair in pairs:
        digest.update(json.dumps(pair).encode())

    def make(advance: Callable[[int], object]) -> Iterator[Part]:
        reader = Reader(tokenizer, options, max_length)
        for part in ahead(partial(_part, reader), _chunks(pairs), cpu.cores(), "tokenise"):
            advance(len(part.keys))
            yield part

    file = cached_file(cache / f"{digest.hexdigest()[:24]}.arrow", "tokenise", len(pairs), make, progress)
    numbers = file.numbers
    _log(rows, numbers, max_length, options.max_target_length)
    fits = np.flatnonzero(numbers["note"] & (LONG_SOURCE | LONG_TARGET) == 0)
    if not len(fits):
        raise UserError(
            f"{rows.origin or 'the data'}: no source fits into data.max_length={max_length} with a target of "
            f"task.max_target_length={options.max_target_length} tokens; the shortest have {numbers['source'].min()} and "
            f"{numbers['target'].min()}. Raise them."
        )
    return Pairs(Selection(file.tokens, fits), numbers["owner"][fits], numbers["target"][fits])


def _chunks(pairs: Sequence[Pair]) -> Iterator[list[Pair]]:
    entries = iter(pairs)
    while chunk := [*islice(entries, _CHUNK)]:
        yield chunk


def _part(reader: Reader, chunk: Sequence[Pair]) -> Part:
    """A pair that is left out is in the file without its tokens, so that every reader of the file knows of it."""
    ids, targets = [], []
    numbers: dict[str, list[int]] = {"owner": [], "note": [], "source": [], "target": []}
    for pair in chunk:
        (source, note), (target, more) = reader.source(pair.turns), reader.target(pair.target)
        left_out = (note | more) & (LONG_SOURCE | LONG_TARGET)
        ids.append(array("i", [] if left_out else source + target))
        targets.append(array("i", [] if left_out else [0] * len(source) + [1] * len(target)))
        for name, number in (
            ("owner", pair.owner), ("note", note | more), ("source", len(source)), ("target", len(target)),
        ):  # fmt: skip
            numbers[name].append(number)
    return Part.of(ids, {TARGETS: targets}, numbers)


def _log(rows: Rows, numbers: dict[str, np.ndarray] | Any, source: int, target: int) -> None:
    notices = Notices(rows.origin, rows.unit)
    for bit, kind in _NOTICES.items():
        for i in np.flatnonzero(numbers["note"] & bit):
            owner = int(numbers["owner"][i])
            number = rows.numbers[owner] if rows.numbers else owner + 1
            sizes = f"{numbers['source'][i]} tokens of source and {numbers['target'][i]} of target"
            notices.add(kind.format(source=source, target=target), number, sizes)
    notices.log()
    lengths = (f"{side} {_spread(numbers[side])}" for side in ("source", "target"))
    log.info("%s: tokens, median / 95 %% / most: %s", short(rows.origin or "rows"), ", ".join(lengths))


def _spread(lengths: np.ndarray) -> str:
    return " / ".join(f"{np.percentile(lengths, level):.0f}" for level in (50, 95, 100))
