"""Rows of conversations and plain texts as cached tokens: one sequence or more for each row, and what became of the rest."""

import hashlib
import json
from array import array
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any, get_args

import numpy as np

from mangakd.core import cpu
from mangakd.core.errors import UserError
from mangakd.core.outputs import TARGETS
from mangakd.data.ahead import ahead
from mangakd.data.chat import ChatTemplate, Mismatch
from mangakd.data.chat_tokens import (
    APART,
    CUT_ANSWER,
    CUT_PROMPT,
    CUT_TEXT,
    ENDLESS,
    LEAD,
    LEFT_OUT,
    SPLIT,
    Marked,
    Marker,
    TooLong,
)
from mangakd.data.notices import Notices
from mangakd.data.rows import Messages, Rows
from mangakd.data.token_files import Part, Progress, cached_file
from mangakd.data.tokens import Selection, Sequences
from mangakd.models.load import vocabulary_digest

Chat = Messages | str
"""A conversation, or a plain text."""
_FORMAT = 2
_CHUNK = 64  # rows
_NOTICES = {
    LEFT_OUT: "answers that do not fit into data.max_length={most} and are left out",
    CUT_ANSWER: "answers that do not fit into data.max_length={most} and lose their end",
    CUT_PROMPT: "prompts that do not fit into data.max_length={most} and lose old turns, then the beginning of the question",
    CUT_TEXT: "texts that do not fit into data.max_length={most} and lose their end",
    SPLIT: "answers of a conversation that the chat template or data.max_length={most} makes a sequence of its own",
    APART: "answers that change how the tokenizer reads the end of their prompt, tokenised apart from it",
    ENDLESS: "answers without an end-of-turn token in the chat template, so that a model does not learn to stop",
    LEAD: "answers before which the chat template writes more, which is learnt with them",
}


@dataclass(frozen=True)
class ChatOptions:
    """template: variables of the chat template, such as enable_thinking: false. too_long: see `Marker`."""

    template: Mapping[str, Any] = field(default_factory=dict)
    too_long: TooLong = "leave_out"

    def __post_init__(self) -> None:
        if self.too_long not in get_args(TooLong):
            raise UserError(f"too_long={self.too_long} must be one of {', '.join(get_args(TooLong))}.")


@dataclass(frozen=True)
class Chats:
    """S sequences. owners (S): the place of each one's row. targets (S): the number of its target tokens."""

    tokens: Sequences
    owners: np.ndarray
    targets: np.ndarray


def tokenise_chats(
    chats: Sequence[Chat],
    rows: Rows,
    tokenizer: Any,
    options: ChatOptions,
    max_length: int,
    cache: Path,
    progress: Progress | None = None,
) -> Chats:
    """chats: of each row one. Other arguments: see `tokenise`.

    Warns of everything that is not learnt as it is written, with counts. Raises UserError for a row whose answers cannot be told
    from its prompt, or that holds no target, and where no answer fits.
    """
    template = ChatTemplate.of(tokenizer, options.template)
    variables = sorted((name, str(value)) for name, value in template.variables.items())
    settings = [template.source, variables, template.swap.special, max_length, options.too_long]
    digest = hashlib.sha256(json.dumps([_FORMAT, vocabulary_digest(tokenizer), *settings]).encode())
    for chat in chats:
        digest.update(json.dumps(chat).encode())

    def make(advance: Callable[[int], object]) -> Iterator[Part]:
        marker = Marker(tokenizer, template, max_length, options.too_long)
        for part in ahead(partial(_part, marker, rows), _chunks(chats), cpu.cores(), "tokenise"):
            advance(len(np.unique(part.numbers["owner"])))
            yield part

    content = cached_file(cache / f"{digest.hexdigest()[:24]}.arrow", "tokenise", len(chats), make, progress)
    owners, notes, prompt, targets = (content.numbers[name] for name in ("owner", "note", "prompt", "answer"))
    _log(rows, owners, notes, prompt, targets, max_length)
    fits = np.flatnonzero(notes & LEFT_OUT == 0)
    if not len(fits):
        raise UserError(
            f"{rows.origin or 'the data'}: no answer fits into data.max_length={max_length}; the shortest sequence has "
            f"{(prompt + targets).min()} tokens. Raise data.max_length."
        )
    return Chats(Selection(content.tokens, fits), owners[fits], targets[fits])


def _chunks(chats: Sequence[Chat]) -> Iterator[list[tuple[int, Chat]]]:
    entries = enumerate(chats)
    while chunk := [*islice(entries, _CHUNK)]:
        yield chunk


def _part(marker: Marker, rows: Rows, chunk: Sequence[tuple[int, Chat]]) -> Part:
    """A sequence that is left out is in the file without its tokens, so that every reader of the file knows of it."""
    entries = [(i, marked) for i, chat in chunk for marked in sequences(marker, rows, i, chat)]
    contents = [Marked([], []) if marked.note & LEFT_OUT else marked for _, marked in entries]
    numbers = {
        "owner": [i for i, _ in entries],
        "note": [marked.note for _, marked in entries],
        "prompt": [marked.prompt for _, marked in entries],
        "answer": [len(marked.ids) - marked.prompt for _, marked in entries],
    }
    ids, targets = (
        [array("i", side) for side in sides] for sides in zip(*((m.ids, m.targets) for m in contents), strict=True)
    )
    return Part.of(ids, {TARGETS: targets}, numbers)


def sequences(marker: Marker, rows: Rows, i: int, chat: Chat) -> Sequence[Marked]:
    """Of one conversation or text. Raises UserError where the row teaches nothing."""
    try:
        sequences = [marker.text(chat)] if isinstance(chat, str) else [*marker.conversation(chat)]
    except Mismatch as error:
        raise UserError(
            f"{rows.where(i)} cannot be learnt: {error}. Correct the row, or the chat_template of the tokenizer; a template that "
            "marks answers by {% generation %} is read by its marks."
        ) from error
    if not all(any(marked.targets) for marked in sequences):
        raise UserError(f"{rows.where(i)} has a text of one token, after which nothing is learnt. Remove it.")
    return sequences


def _log(
    rows: Rows, owners: np.ndarray, notes: np.ndarray, prompt: np.ndarray, answer: np.ndarray, max_length: int
) -> None:
    notices = Notices(rows.origin, rows.unit)
    for bit, kind in _NOTICES.items():
        for i in np.flatnonzero(notes & bit):
            number = rows.numbers[owners[i]] if rows.numbers else int(owners[i]) + 1
            sizes = f"{prompt[i]} tokens of prompt and {answer[i]} of answer"
            notices.add(kind.format(most=max_length), number, sizes)
    notices.log()
