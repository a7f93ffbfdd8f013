"""Texts of a run as tokens: train, validation and test, and the texts without labels that a stage reads."""

import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from torch import Tensor

from mangakd.core.errors import UserError
from mangakd.core.spec import Head
from mangakd.data.apart import tokenise_apart
from mangakd.data.augment import Augment, Neighbours, from_cache
from mangakd.data.chats import Chat, ChatOptions, tokenise_chats
from mangakd.data.encoded import EncodedSplit, Sides, joined
from mangakd.data.loader import EvalBatches
from mangakd.data.pairs import Template, Where, tokenise_pairs
from mangakd.data.rows import Rows, inputs
from mangakd.data.seq2seq import Pair, SourceOptions, tokenise_targets
from mangakd.data.sequence_texts import SequenceTexts
from mangakd.data.source import Corpus
from mangakd.data.tokenising import tokenise
from mangakd.data.tokens import Sequences
from mangakd.models import load
from mangakd.models.late import Late
from mangakd.tasks.base import Task
from mangakd.teachers.base import digest
from mangakd.training.callbacks.progress import progress
from mangakd.training.stages import Stage

log = logging.getLogger(__name__)
Splits = Mapping[str, EncodedSplit]
# Kind of texts without labels → what gives such texts.
KEYS = {
    "unlabelled": "data.unlabelled_path, data.labelled_share or, of the synthetic corpus, data.unlabelled",
    "augmented": "augment.copies",
}

FIT_TOKENS, FIT_BATCH = 60_000, 64  # a GB of hidden states of MiniLM, a minute of a core


@dataclass(frozen=True)
class Tokeniser:
    """Texts → tokens for both models. cache: folder of the tokens. max_length: tokens of a text. student_late, teacher_late: of
    models that read the texts of a pair apart."""

    student_tokenizer: Any
    teacher_tokenizer: Any
    max_length: int
    cache: Path
    student_late: Late | None = None
    teacher_late: Late | None = None

    def __call__(self, texts: Sequence[str], /) -> Sides:
        def read(tokenizer: Any, late: Late | None) -> Sequences:
            return tokenise(texts, tokenizer, self.max_length, self.cache, progress)

        return self._sides(read)

    def pairs(self, first: Sequence[str], second: Sequence[str], where: Where = "pair {}".format, /) -> Sides:
        options = (self.max_length, self.cache, progress, where)

        def read(tokenizer: Any, late: Late | None) -> Sequences:
            if late is None:
                return tokenise_pairs(first, second, tokenizer, *options)
            return tokenise_apart(first, second, tokenizer, late, *options)

        return self._sides(
            read,
            self._frame(self.student_tokenizer, self.student_late)
            == self._frame(self.teacher_tokenizer, self.teacher_late),
        )

    def chats(self, chats: Sequence[Chat], rows: Rows, options: ChatOptions, /) -> tuple[Sides, np.ndarray, np.ndarray]:
        tokenizer = self.chat_tokenizer
        each = tokenise_chats(chats, rows, tokenizer, options, self.max_length, self.cache, progress)
        return (
            Sides(each.tokens, each.tokens, tokenizer.pad_token_id, tokenizer.pad_token_id),
            each.owners,
            each.targets,
        )

    def targets(
        self, pairs: Sequence[Pair], rows: Rows, options: SourceOptions, /
    ) -> tuple[Sides, np.ndarray, np.ndarray]:
        tokenizer = self.student_tokenizer
        each = tokenise_targets(pairs, rows, tokenizer, options, self.max_length, self.cache, progress)
        pad = tokenizer.pad_token_id
        return Sides(each.tokens, each.tokens, pad, pad, sources=True), each.owners, each.targets

    @property
    def chat_tokenizer(self) -> Any:
        """The student's; the teacher's if that alone has a chat template and their vocabularies are equal."""
        borrows = not self.student_tokenizer.chat_template and self._equal_vocabularies
        return self.teacher_tokenizer if borrows else self.student_tokenizer

    @property
    def _equal_vocabularies(self) -> bool:
        return load.vocabulary_digest(self.student_tokenizer) == load.vocabulary_digest(self.teacher_tokenizer)

    @staticmethod
    def _frame(tokenizer: Any, late: Late | None) -> object:
        return Template.of(tokenizer) if late is None else (Template.single(tokenizer), late)

    def _sides(self, read: Callable[[Any, Late | None], Sequences], same: bool = True) -> Sides:
        """same: whether both models read alike if their vocabularies are equal."""
        teacher = read(self.teacher_tokenizer, self.teacher_late)
        student = teacher if same and self._equal_vocabularies else read(self.student_tokenizer, self.student_late)
        return Sides(student, teacher, self.student_tokenizer.pad_token_id, self.teacher_tokenizer.pad_token_id)


def splits_of(
    corpus: Corpus,
    task: Task,
    head: Head,
    stages: list[Stage],
    tokeniser: Tokeniser,
    augmented: Callable[[], list[str]],
) -> dict[str, EncodedSplit]:
    """augmented: makes new texts; asked only where a stage reads them."""
    rows = dict(corpus.splits)
    for kind, key in KEYS.items():
        if any(kind in stage.texts for stage in stages):
            rows[kind] = _new_rows(task, augmented) if kind == "augmented" else corpus.unlabelled
            if not len(rows[kind]):
                raise UserError(f"a stage reads {kind} texts and there are none: set {key}.")
    return {name: task.encode(each, head, tokeniser) for name, each in rows.items()}


def _new_rows(task: Task, augmented: Callable[[], list[str]]) -> Rows:
    if inputs(task.columns) != ["text"]:
        raise UserError(
            f"new texts are made of rows of one text, and task={task.name} reads {', '.join(inputs(task.columns))}: leave "
            "`augmented` out of the stages' texts."
        )
    return Rows({"text": augmented()})


def sequence_texts(corpus: Corpus, task: Task, stages: Sequence[Stage]) -> dict[str, SequenceTexts]:
    """The texts of each split that the run reads. New texts of rows of one text are not among them."""
    rows = dict(corpus.splits)
    if any("unlabelled" in stage.texts for stage in stages):
        rows["unlabelled"] = corpus.unlabelled
    return {name: SequenceTexts(each, task.sequences) for name, each in rows.items()}


def stage_rows(splits: Splits, stage: Stage) -> EncodedSplit:
    """What a stage trains on."""
    return limited(joined([splits["train" if kind == "labelled" else kind] for kind in stage.texts]), stage.limit)


def limited(split: EncodedSplit, limit: int | None) -> EncodedSplit:
    """At most so many rows, drawn without the run's seed: runs of several seeds differ in their students alone."""
    if limit is None or limit >= len(split):
        return split
    return split.take(np.sort(np.random.default_rng(0).permutation(len(split))[:limit]))


def augmented_texts(augment: Augment, corpus: Corpus, head: Head, path: str, tokenizer: Any, cache: Path) -> list[str]:
    """New texts from the training texts, made once and read from the cache afterwards.

    path, tokenizer: of the model whose embeddings say which words are neighbours.
    """
    texts = [*corpus.train["text"], *corpus.unlabelled["text"]]
    held_out = [*corpus.validation["text"], *corpus.test["text"]]

    def make() -> list[str]:
        log.info("making %d variants of each of %d texts …", augment.copies, len(texts))
        base = load.outline_for(path, head, "teacher.path")
        words = Neighbours(tokenizer, base.weight(base.model.get_input_embeddings().weight).detach())
        return augment.made(texts, words, held_out)

    return from_cache(cache / f"{digest(augment, path, texts, held_out)}.json", make)


def some_inputs(splits: Mapping[str, EncodedSplit]) -> Iterator[Mapping[str, Tensor]]:
    """Batches of the student's inputs: training texts, spread evenly, of some FIT_TOKENS tokens together."""
    train = [split.sequences for name, split in splits.items() if name not in ("validation", "test")]
    share = min(1.0, FIT_TOKENS / sum(int(split.student.lengths.sum()) for split in train))
    for split in train:
        places = np.linspace(0, len(split) - 1, max(1, int(share * len(split))), dtype=np.int64)
        yield from (batch["student"] for batch in EvalBatches(split, FIT_BATCH, places))
