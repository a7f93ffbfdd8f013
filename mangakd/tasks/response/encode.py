"""Rows of prompt and answer, of messages or of plain text → sequences with target tokens, each a row of the split.

A row holds one of `messages`, `prompt` with `answer`, and `text`. `system` is its system prompt, and `context` holds the
passages that were retrieved for its question and are written before it. Every answer of a conversation is learnt.
"""

import re
from collections.abc import Iterator

from mangakd.core.errors import UserError
from mangakd.data.chat import answers
from mangakd.data.chats import Chat, ChatOptions
from mangakd.data.encoded import EncodedSplit, Tokenise
from mangakd.data.rows import NOTHING, Columns, Messages, Rows

COLUMNS: Columns = {
    "messages": "messages", "prompt": "text", "text": "text", "system": "text", "context": "passages", "answer": "answer",
}  # fmt: skip
"""All of them are optional."""
KINDS = ("messages", "prompt", "text")


def encoded(
    rows: Rows, tokenise: Tokenise, options: ChatOptions, system: str = "", question: str = "{context}\n\n{prompt}"
) -> EncodedSplit:
    """A split of S sequences, which counts `targets`. tokens (S): the number of target tokens.

    A conversation may own several sequences, and an answer that is too long none (data/chats.py). system: the system prompt of
    rows that have none. question: how a question is written with its context. Raises UserError for rows that teach nothing.
    """
    chats = [*chats_of(rows, system, question)]
    sides, owners, targets = tokenise.chats(chats, rows, options)
    return EncodedSplit(sides, {"tokens": targets}, {"targets": targets}, owners=owners)


def chats_of(rows: Rows, system: str, question: str) -> Iterator[Chat]:
    """Each row as a conversation or a plain text."""
    cells = [rows[name] if name in rows else [NOTHING[kind]] * len(rows) for name, kind in COLUMNS.items()]
    for i, row in enumerate(zip(*cells, strict=True)):
        chat = _chat(rows.where(i), *row)
        yield chat if isinstance(chat, str) else _prompted(chat, row[3] or system, row[4], question)


def prompts_of(rows: Rows, system: str, question: str) -> Iterator[Messages]:
    """Each row's conversation up to its last question, which is to be answered. Raises UserError for a row without one."""
    for i, (messages, prompt, system_cell, context) in enumerate(
        zip(*(rows[name] for name in ("messages", "prompt", "system", "context")), strict=True)
    ):
        if bool(messages) == bool(prompt.strip()):
            what = "both messages and a prompt" if messages else "neither messages nor a prompt"
            raise UserError(f"{rows.where(i)} holds {what}. A row holds one of them; data.columns names the columns.")
        turns = messages or (("user", prompt),)
        places = [place for place, (role, _) in enumerate(turns) if role == "user"]
        if not places:
            raise UserError(f"{rows.where(i)} has messages without a question: one of them must be of the role user.")
        # Context belongs to the last question that has an answer: the one that will be written.
        answered = (*turns[: places[-1] + 1], ("assistant", ""))
        yield _prompted(answered, system_cell or system, context, question)[:-1]


def shown(rows: Rows) -> list[str]:
    """The last question of each row, or its text."""
    return [
        _last_question(messages) or prompt or text
        for messages, prompt, text in zip(*(rows[name] for name in KINDS), strict=True)
    ]


def _last_question(messages: Messages) -> str:
    return next((content for role, content in reversed(messages) if role == "user"), "")


def _chat(
    where: str, messages: Messages, prompt: str, text: str, system: str, context: tuple[str, ...], answer: str
) -> Chat:
    """Without system prompt and context."""
    kinds = [name for name, cell in zip(KINDS, (messages, prompt.strip(), text.strip()), strict=True) if cell]
    if len(kinds) != 1:
        raise UserError(
            f"{where} holds {' and '.join(kinds) or 'neither messages nor a prompt nor a text'}. A row holds one of "
            f"{', '.join(KINDS)}; data.text_column and data.columns name the columns of the file."
        )
    if (kinds == ["prompt"]) != bool(answer.strip()):
        what, lack = ("a prompt", "no answer") if not answer.strip() else (f"an answer beside {kinds[0]}", "no prompt")
        raise UserError(f"{where} has {what} and {lack}: a prompt and its answer belong together. Correct the row.")
    if kinds == ["text"] and (system or context):
        raise UserError(f"{where} has a text beside a {'system prompt' if system else 'context'}: these need a prompt.")
    if system and any(role == "system" for role, _ in messages):
        raise UserError(f"{where} has a system prompt in its messages and another one beside them. Remove one of them.")
    return messages or (text if kinds == ["text"] else (("user", prompt), ("assistant", answer)))


def _prompted(messages: Messages, system: str, context: tuple[str, ...], question: str) -> Messages:
    """With a system prompt before messages that have none, and the context in the last question that has an answer."""
    if context and (places := answers(messages)):
        place = max(i for i, (role, _) in enumerate(messages[: places[-1]]) if role == "user")
        # In one pass: a context may hold the word {prompt}.
        parts = {"{context}": "\n\n".join(context), "{prompt}": messages[place][1]}
        text = re.sub("{context}|{prompt}", lambda match: parts[match[0]], question)
        messages = (*messages[:place], ("user", text), *messages[place + 1 :])
    has_one = any(role in ("system", "developer") for role, _ in messages)
    return messages if has_one or not system else (("system", system), *messages)
