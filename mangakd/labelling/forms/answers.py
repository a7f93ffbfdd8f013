"""`writes=answers`: an answer to each prompt, for `task=response`. With a context in the row the answer is grounded in it."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

from mangakd.data.rows import Columns, Messages, Rows
from mangakd.labelling.forms.form import Form, Row
from mangakd.labelling.provider import Answer
from mangakd.tasks.response.encode import prompts_of


@dataclass(frozen=True)
class Answers(Form):
    """system, question: of rows that have no system prompt, or a context (task=response).

    A template replaces the last question and the system prompt. It gets `prompt` (the question alone), `context` (a list of
    passages) and `system`. The row keeps its own prompt, so that a student learns to answer without the template.
    """

    columns: ClassVar[Columns] = {"messages": "messages", "prompt": "text", "system": "text", "context": "passages"}
    needs: ClassVar[tuple[str, ...]] = ("messages", "prompt")
    parses: ClassVar[bool] = False
    system: str = ""
    question: str = "{context}\n\n{prompt}"

    def prompts(self, rows: Rows) -> Iterator[Messages]:
        if self.prompt is None:
            yield from prompts_of(rows, self.system, self.question)
            return
        for i, messages in enumerate(prompts_of(rows, self.system, "{prompt}")):
            first = messages[0][1] if messages[0][0] in ("system", "developer") else ""
            before = [message for message in messages[:-1] if message[0] not in ("system", "developer")]
            values = {"prompt": messages[-1][1], "context": [*rows["context"][i]], "system": first}
            *first_turns, question = self.prompt.messages(values, rows.where(i))
            yield (*first_turns, *before, question)

    def read(self, rows: Rows, i: int, answer: Answer) -> Sequence[Row]:
        cells: dict[str, Any] = {name: rows[name][i] for name in self.columns if rows[name][i]}
        if "messages" not in cells:
            return [{**cells, "answer": answer.text}]
        turns = cells["messages"]
        last = max(place for place, (role, _) in enumerate(turns) if role == "user")
        messages = (*turns[: last + 1], ("assistant", answer.text))
        return [{**cells, "messages": [{"role": role, "content": content} for role, content in messages]}]
