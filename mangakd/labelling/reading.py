"""Answers → rows of training data, or the reason why an answer becomes none."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

from mangakd.core.errors import UserError
from mangakd.data.rows import Rows
from mangakd.labelling import thoughts
from mangakd.labelling.forms.form import Form, Row, Unusable
from mangakd.labelling.provider import Answer
from mangakd.labelling.schemas import Schema

CUT = ("leave_out", "keep")


@dataclass(frozen=True)
class Reading:
    """form: what was asked for. cut: what becomes of an answer that max_new_tokens cuts. thought: what becomes of a reasoning
    model's words before its answer: strip, keep (in the text), column. schema: that answers follow.

    Raises UserError for an option outside its range.
    """

    form: Form
    cut: str = "leave_out"
    thought: str = "strip"
    schema: Schema | None = None

    def __post_init__(self) -> None:
        if self.cut not in CUT:
            raise UserError(f"cut={self.cut} must be one of {', '.join(CUT)}.")
        thoughts.check_way(self.thought, self.form.parses or self.schema is not None)

    def rows(self, rows: Rows, i: int, answer: Answer) -> Sequence[Row]:
        """The rows that the answer to row i of the requests becomes. Raises Unusable."""
        answer = thoughts.apart(answer)
        self._check_end(answer)
        if self.schema is not None:
            answer = replace(answer, text=self.schema.text(answer.text))
        whole = replace(answer, text=thoughts.together(answer)) if self.thought == "keep" else answer
        column = {"thought": answer.thought} if self.thought == "column" else {}
        end = {"tokens": answer.tokens, "ended": answer.reason == "ended"}
        return [{**row, **column, **end} for row in self.form.read(rows, i, whole)]

    def _check_end(self, answer: Answer) -> None:
        if answer.reason == "cut" and self.form.reads_cut:
            return
        if answer.reason == "cut" and not (self.cut == "keep" and answer.text):
            raise Unusable("cut")
        if answer.reason not in ("ended", "cut"):
            raise Unusable(answer.reason)
        if not answer.text and not answer.logprobs:
            raise Unusable("empty")
