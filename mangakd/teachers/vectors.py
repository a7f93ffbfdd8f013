"""`teacher=vectors`: vectors that exist already, in a file, such as the answers of an embedding API."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import ClassVar

from mangakd.core.spec import Head, Kind
from mangakd.data.vectors import read_vectors
from mangakd.teachers.lookup import Answers, LookupOptions


@dataclass(kw_only=True)
class Vectors(LookupOptions):
    """teacher=vectors. path: a file (data/vectors.py). texts: of a .npy; None: the file of the same name beside it.

    text_column, vector_column: of a table. A text is looked up as the teacher reads it, with its prompt (`task.prompts.teacher`).
    """

    noun: ClassVar[str] = "vector"
    nouns: ClassVar[str] = "vectors"
    kind: ClassVar[Kind] = "vector"
    pairs: ClassVar[bool] = False
    texts: str | None = None
    text_column: str | int = "text"
    vector_column: str | int = "vector"

    @cached_property
    def answers(self) -> Answers:
        file = read_vectors(self.path, self.texts, self.text_column, self.vector_column)
        return Answers({(text,): i for text, i in file.places.items()}, file.table)

    def head(self, task: Head, models: Sequence[Head]) -> Head:
        """As wide as the vectors in the file."""
        return replace(super().head(task, models), outputs=self.answers.table.shape[1])
