"""`writes=rewrites`: the last turn of a conversation, written anew so that it stands alone, for `task=rewrite`.

A rewriter that is an encoder–decoder reads the turns of a conversation. A language model is told in words what a rewrite is, with
examples as turns before: small models follow examples more surely than an instruction (Brown et al. 2020, arXiv:2005.14165).
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar

from mangakd.core.errors import UserError
from mangakd.data.rows import Columns, Messages, Rows
from mangakd.labelling.forms.form import Form, Row
from mangakd.labelling.provider import Answer
from mangakd.tasks.rewrite import encode

HISTORY, UTTERANCE = "{history}", "{utterance}"


@dataclass(frozen=True)
class Turns(Form):
    """The turns of a conversation for an encoder–decoder, which joins them itself (labelling/seq2seq.py)."""

    columns: ClassVar[Columns] = {
        name: kind for name, kind in encode.COLUMNS.items() if name not in ("rewrite", "target")
    }
    needs: ClassVar[tuple[str, ...]] = ("input", "utterance")

    def prompts(self, rows: Rows) -> Iterator[Messages]:
        """A template gets `history` (a list of turns, the oldest first) and `utterance`."""
        for i, (utterance, text) in enumerate(zip(rows["utterance"], rows["input"], strict=True)):
            if bool(utterance.strip()) == bool(text.strip()):
                what = "both an utterance and an input" if text.strip() else "neither an utterance nor an input"
                raise UserError(
                    f"{rows.where(i)} holds {what}. A row holds one of them; data.columns names the columns."
                )
            history, last = (
                [turn for turn in rows["history"][i] if turn.strip()],
                utterance if utterance.strip() else text,
            )
            if self.prompt is None:
                yield self.messages(history, last)
            else:
                yield self.prompt.messages(self.values(history, last), rows.where(i))

    def messages(self, history: Sequence[str], utterance: str) -> Messages:
        return tuple(("user", turn) for turn in (*history, utterance))

    def values(self, history: Sequence[str], utterance: str) -> Mapping[str, Any]:
        """What a template gets."""
        return {"history": [*history], "utterance": utterance}

    def read(self, rows: Rows, i: int, answer: Answer) -> Sequence[Row]:
        """Several texts of a row are its expansions."""
        return [self.row(rows, i, [answer.text, *answer.more] if answer.more else answer.text)]

    def row(self, rows: Rows, i: int, rewrite: str | list[str]) -> Row:
        return {**{name: rows[name][i] for name in self.columns if rows[name][i]}, "rewrite": rewrite}


@dataclass(frozen=True)
class Rewrites(Turns):
    """The same for a language model, in words. instruction: the system prompt, or none. template: of what is asked.

    separator: between the turns of a history. nothing: the history of a first turn. examples: conversations with their rewrites.
    Raises UserError for a template that does not show the utterance once, and for an example that lacks a text.
    """

    instruction: str
    template: str
    separator: str = "\n"
    nothing: str = "(none)"
    examples: Sequence[Mapping[str, Any]] = field(default=())

    def __post_init__(self) -> None:
        if self.template.count(UTTERANCE) != 1 or self.template.count(HISTORY) > 1:
            raise UserError(
                f"rewriting.template={self.template!r} must hold {UTTERANCE} once, and {HISTORY} at most once."
            )
        for number, example in enumerate(self.examples):
            if not {"utterance", "rewrite"} <= example.keys() <= {"history", "utterance", "rewrite"}:
                raise UserError(
                    f"rewriting.examples[{number}] has {', '.join(map(str, example)) or 'no entry'}; an example has utterance "
                    "and rewrite, and history where there is one."
                )

    def messages(self, history: Sequence[str], utterance: str) -> Messages:
        """The examples as turns, then what is asked."""
        system = (("system", self.instruction),) if self.instruction else ()
        examples = tuple(
            message
            for each in self.examples
            for message in (
                ("user", self._asked(each.get("history") or (), each["utterance"])), ("assistant", each["rewrite"])
            )
        )  # fmt: skip
        return (*system, *examples, ("user", self._asked(history, utterance)))

    def _asked(self, history: Sequence[str], utterance: str) -> str:
        before, _, after = self.template.partition(UTTERANCE)  # a text may hold the word {history}
        turns = self.separator.join(history) or self.nothing
        return before.replace(HISTORY, turns) + utterance + after.replace(HISTORY, turns)
