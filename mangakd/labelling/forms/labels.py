"""`writes=labels`: the label of each text, for `task=intent`."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

from mangakd.core.errors import UserError
from mangakd.data.rows import Columns, Messages, Rows
from mangakd.labelling.forms.form import Form, Row
from mangakd.labelling.forms.label_names import LabelNames
from mangakd.labelling.provider import Answer
from mangakd.labelling.templates import Template


@dataclass(frozen=True, kw_only=True)
class Labels(Form):
    """labels: the names, of which each answer is one.

    The template gets `text`, `labels` (choice, name and description of each) and `letters` (whether choices are letters).
    """

    columns: ClassVar[Columns] = {"text": "text"}
    needs: ClassVar[tuple[str, ...]] = ("text",)
    labels: LabelNames
    prompt: Template

    @property
    def settings(self) -> Mapping[str, Any]:
        return {"labels": dict(self.labels.descriptions), "letters": self.labels.letters, "prompt": self.prompt.sha256}

    @property
    def choices(self) -> tuple[str, ...]:
        return self.labels.choices

    def prompts(self, rows: Rows) -> Iterator[Messages]:
        for i, text in enumerate(rows["text"]):
            if not text.strip():
                raise UserError(f"{rows.where(i)} has no text. Fill or remove it, or set data.columns.text.")
            values = {"text": text, "labels": self.labels.options, "letters": self.labels.letters}
            yield self.prompt.messages(values, rows.where(i))

    def read(self, rows: Rows, i: int, answer: Answer) -> Sequence[Row]:
        return [{"text": rows["text"][i], "label": self.labels.read(answer.text)}]
