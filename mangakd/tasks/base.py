"""`Task`: what one kind of problem asks of the house. A task is one class, its judge and one yaml (docs/how-to/add_a_task.md).

Data, teachers, students and evaluation never see a task; they see what it gives: columns, a head, encoded rows, a judge.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, ClassVar, NamedTuple

import numpy as np
import torch
from torch import Tensor

from mangakd.core.outputs import Batch, Outputs
from mangakd.core.spec import Head, Kind
from mangakd.data.chat_tokens import Marked
from mangakd.data.encoded import EncodedSplit, Tokenise
from mangakd.data.rows import Columns, Rows, inputs
from mangakd.data.source import Corpus
from mangakd.evaluation.generations import Example, Text
from mangakd.evaluation.judge import Arrays, Judge
from mangakd.evaluation.served import Served
from mangakd.losses.base import LossCallback
from mangakd.models.encoder import Encoder
from mangakd.models.generation import Sampling
from mangakd.models.sentence_transformers import Settings
from mangakd.tasks.meters import Meters

Answers = Callable[[np.ndarray], np.ndarray]
"""Positions of sequences (n) → the teacher's answers to them (n, …)."""
Model = Callable[[Batch], Outputs]
"""A student or a teacher: batch → its outputs for the batch's sequences."""


class OwnText(NamedTuple):
    """A batch whose targets the student wrote. units: unit of counting that depends on texts → how many are in the batch."""

    batch: Batch
    units: Mapping[str, int]


Author = Callable[[Encoder, Batch, Sampling, Sequence[int]], OwnText]
"""Student, batch, how its tokens are chosen, and a seed for each sequence (S) → the batch with what the student writes."""


class Samples(NamedTuple):
    """examples: N prompts with their references. ways: texts of each. write: a model, and what is called with the number of texts
    that were done → of each prompt, way → text.

    rows: the split's rows that the prompts belong to. The scores of each prompt's first text are then answers to these rows,
    which the judge reads (`Judge.generated`). None where the texts are scored apart from the rows (`Judge.written`)."""

    examples: Sequence[Example]
    ways: int
    write: Callable[[Encoder, Callable[[int], object]], list[Mapping[str, Text]]]
    rows: np.ndarray | None = None

    def answers(self, texts: Sequence[Mapping[str, Text]], size: int) -> dict[str, Tensor]:
        """Score → (N), NaN for rows without a text; {} where texts are not scored with the rows. size: N of the split."""
        if self.rows is None or not texts:
            return {}
        firsts = [next(iter(ways.values())).scores for ways in texts]
        table = {name: np.full(size, np.nan) for name in firsts[0]}
        for row, scores in zip(self.rows.tolist(), firsts, strict=True):
            for name, value in scores.items():
                table[name][row] = value
        return {name: torch.from_numpy(values) for name, values in table.items()}

    def lists(self, texts: Sequence[Mapping[str, Text]], size: int) -> list[list[str]]:
        """The texts of each of the split's N rows."""
        lists: list[list[str]] = [[] for _ in range(size)]
        for row, ways in zip([] if self.rows is None else self.rows.tolist(), texts, strict=False):
            lists[row] = [text.text for text in ways.values()]
        return lists


class Task(ABC):
    """name: for folders and cards. kind: of its head, which also chooses among hardware.tasks.

    columns: what its rows hold, the inputs and what is learnt. optional: columns that a file may lack. units: what `encode`
    counts for losses beside ALWAYS (losses/base.py). shows_untrained: whether the tables have the student before its training,
    too. pairs: whether its models score pairs of texts; the student is then saved as a CrossEncoder of sentence-transformers.
    compares: whether `ask` compares a model with the teacher, whose answers are too large to keep.
    tokenised_early: whether preflight tokenises, because some texts are refused then: queries that leave no room for a document,
    answers that cannot be told from their prompt.
    judge: names, ranks and computes the scores. monitor: the judge's score that picks the best epoch.
    max_target_length: tokens of a target that an encoder's source precedes; None where no source does. generate_every: the
    student writes texts on validation every so many epochs; 0 for never.
    """

    units: ClassVar[tuple[str, ...]] = ("labels",)
    optional: ClassVar[tuple[str, ...]] = ()
    shows_untrained: ClassVar[bool] = False
    pairs: ClassVar[bool] = False
    compares: ClassVar[bool] = False
    tokenised_early: ClassVar[bool] = False
    name: str
    kind: Kind
    judge: Judge
    monitor: str
    max_target_length: int | None = None
    generate_every: int = 0

    @property
    @abstractmethod
    def columns(self) -> Columns:
        """Name → kind; inputs first."""

    def prepare(self, corpus: Corpus) -> Corpus:
        """The corpus with what the task adds. Raises UserError for rows that the task cannot use.

        Cells are checked before: none is missing, and each is of its column's kind.
        """
        return corpus

    def has_labels(self, rows: Rows) -> bool:
        """Whether `own_loss` learns something from these rows."""
        return True

    @abstractmethod
    def head(self, corpus: Corpus, tokenizer: Any) -> Head:
        """The head that student and teacher need. tokenizer: the student's."""

    @abstractmethod
    def encode(self, rows: Rows, head: Head, tokenise: Tokenise) -> EncodedSplit:
        """A split for both models. Rows without labels hold the inputs alone: what is learnt is then marked as missing."""

    def sequences(self, rows: Rows) -> Iterable[Sequence[tuple[str, ...]]]:
        """For each row its sequences in the order of `encode`, each a text or a pair of texts, as the teacher reads them."""
        return ([(text,)] for text in rows[inputs(self.columns)[0]])

    def marked(self, rows: Rows, tokenizer: Any, max_length: int) -> list[Marked]:
        """Of a task of language models the sequences of rows, with marks of their target tokens."""
        raise NotImplementedError

    @abstractmethod
    def own_loss(self) -> LossCallback:
        """What the baseline and a teacher that is fine-tuned learn from: the labels alone."""

    def shown(self, rows: Rows) -> list[str]:
        """A text for each row, for the report. By default its first input."""
        return list(rows[inputs(self.columns)[0]])

    def lists(self, rows: Rows) -> dict[str, list[list[str]]]:
        """Column → the texts of each row, for the report. By default the columns of rows that own several texts."""
        names = [name for name, kind in self.columns.items() if kind == "texts"]
        return {name: [list(texts) for texts in rows[name]] for name in names}

    def ask(self, model: Model, batch: Batch, teacher: Model | None = None) -> dict[str, Tensor]:
        """What the judge needs of a model's answer, by name, each (B, …). By default the head's own numbers (B, outputs).

        teacher: answers beside a student of a task that `compares`; other tasks never ask it.
        """
        return {"logits": model(batch).answer}

    def author(self, tokenizer: Any, max_length: int) -> Author | None:
        """How a student writes the targets of a batch itself, for distill.lmbda; None where targets are no texts.

        tokenizer: that which reads the rows. max_length: tokens of a sequence.
        """
        return None

    def samples(self, rows: Rows, split: EncodedSplit, tokenizer: Any, max_length: int) -> Samples | None:
        """What models are asked to write for the report; None for tasks, or options, that write nothing.

        rows: of the split, row by row. tokenizer, max_length: as of `author`.
        """
        return None

    @abstractmethod
    def meters(self, head: Head, teacher: bool, together: bool) -> Meters:
        """One meter for each score of `judge.statistics`.

        teacher: whether the teacher's answers are given, or are in the student's. together: whether other ranks hold a part of
        the rows.
        """

    @property
    def mining(self) -> object | None:
        """The options of `mine`; None for a task, or options, that mine nothing."""
        return None

    def mine(self, rows: Rows, train: EncodedSplit, answers: Answers) -> np.ndarray:
        """(N, K) positions of sequences that each training row gets in addition, such as hard negatives; below 0 for none."""
        raise NotImplementedError

    def mining_size(self, train: EncodedSplit) -> tuple[int, int]:
        """For planning: how many texts the teacher reads to mine, and how many sequences `mine` adds at most."""
        return 0, 0

    def references(self, rows: Rows, split: EncodedSplit) -> Mapping[str, dict[str, Tensor]]:
        """Name → answers for a split that need no training, such as those of a word search; the tables show their scores."""
        return {}

    def folder_settings(self, max_length: int) -> Settings:
        """What the student's folder says to sentence-transformers, of heads of vectors and of tasks of `pairs`."""
        return Settings(max_length=max_length)

    def served(self, rows: Rows) -> Served | None:
        """What a served student is asked about the rows, and how its outputs are judged.

        By default None: a student reads the first input of a row, and the kind of its head says how variants are compared. A task
        whose rows own several sequences says it here, and so does a task whose students write: its outputs are then texts.
        """
        return None

    def facts(self, train: EncodedSplit, head: Head) -> Arrays:
        """What the judge must know of the training rows for its report."""
        return {}
