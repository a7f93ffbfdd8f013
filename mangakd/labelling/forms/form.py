"""`Form`: what a teacher is asked for with each row, and which rows of training data its answer becomes."""

import json
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, ClassVar, Protocol

from mangakd.data.rows import Columns, Messages, Rows
from mangakd.labelling.provider import Answer
from mangakd.labelling.templates import Template

Row = Mapping[str, Any]


class Unusable(Exception):
    """An answer that cannot be read. reason: a few words, the same for all such answers. detail: of this answer."""

    def __init__(self, reason: str, detail: str = "") -> None:
        super().__init__(reason, detail)
        self.reason, self.detail = reason, detail


class Reads(Protocol):
    """What is read of a file. columns: of the file. needs: a row has one of them, most often the last."""

    columns: ClassVar[Columns]
    needs: ClassVar[tuple[str, ...]]


@dataclass(frozen=True, kw_only=True)
class Form(ABC):
    """columns: of the file of prompts. needs: a row has one of them, most often the last.

    prompt: a template in a file; None where the form asks without one. choices: the texts of which an answer is one.
    most_samples: how many samples of a prompt make sense; None for any number. reads_cut: whether it reads answers that
    max_new_tokens cuts. parses: whether it reads the answer, so that no thought may be left in it.
    """

    columns: ClassVar[Columns]
    needs: ClassVar[tuple[str, ...]]
    most_samples: ClassVar[int | None] = None
    reads_cut: ClassVar[bool] = False
    parses: ClassVar[bool] = True
    prompt: Template | None = None

    @property
    def settings(self) -> Mapping[str, Any]:
        """What a text depends on: plain values, written beside each text. A template is its SHA-256."""
        values = {each.name: getattr(self, each.name) for each in fields(self) if each.name != "prompt"}
        plain: Mapping[str, Any] = json.loads(json.dumps(values))
        return {**plain, "prompt": self.prompt.sha256} if self.prompt else plain

    @property
    def template_file(self) -> Path | None:
        return self.prompt.file if self.prompt else None

    @property
    def choices(self) -> tuple[str, ...]:
        return ()

    @property
    def reads_logprobs(self) -> bool:
        """Whether an answer without log-probabilities is unusable."""
        return False

    def requests(self, rows: Rows) -> Rows:
        """One row for each request: the rows themselves, where each asks once."""
        return rows

    @abstractmethod
    def prompts(self, rows: Rows) -> Iterator[Messages]:
        """What each row asks. Raises UserError for a row that asks nothing."""

    @abstractmethod
    def read(self, rows: Rows, i: int, answer: Answer) -> Sequence[Row]:
        """The rows that the answer to row i becomes, in columns of the task. Raises Unusable for an answer that says nothing."""
