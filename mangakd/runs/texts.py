"""Texts of a run as tokens: train, validation and test, and the texts without labels that a stage reads."""

import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from mangakd.core.errors import UserError
from mangakd.data.augment import Augment, Neighbours, kept
from mangakd.data.loader import NO_LABEL, EncodedSplit, joined
from mangakd.data.source import Corpus
from mangakd.data.tokenising import tokenise
from mangakd.models import load
from mangakd.tasks.base import Task
from mangakd.teachers.base import digest
from mangakd.training.callbacks.progress import progress
from mangakd.training.stages import Stage

log = logging.getLogger(__name__)
Splits = Mapping[str, EncodedSplit]
# Kind of texts without labels → what gives such texts.
KEYS = {"unlabelled": "data.unlabelled_path or data.labelled_share", "augmented": "augment.copies"}


@dataclass(frozen=True)
class Tokenise:
    """Texts and targets → a split. cache: folder of the tokens. max_length: tokens of a text."""

    student_tokenizer: Any
    teacher_tokenizer: Any
    max_length: int
    cache: Path

    def __call__(self, texts: list[str], targets: np.ndarray) -> EncodedSplit:
        teacher = self._tokens(texts, self.teacher_tokenizer)
        same = load.vocabulary_digest(self.student_tokenizer) == load.vocabulary_digest(self.teacher_tokenizer)
        student = teacher if same else self._tokens(texts, self.student_tokenizer)
        return EncodedSplit(
            student, teacher, targets, self.student_tokenizer.pad_token_id, self.teacher_tokenizer.pad_token_id
        )

    def _tokens(self, texts: list[str], tokenizer: Any) -> Any:
        return tokenise(texts, tokenizer, self.max_length, self.cache, progress)


def targets_of(corpus: Corpus, task: Task) -> dict[str, np.ndarray]:
    """Raises UserError for labels that the task cannot use."""
    return {name: task.targets(rows, corpus.labels) for name, rows in corpus.splits.items()}


def splits_of(
    corpus: Corpus, targets: Mapping[str, np.ndarray], stages: list[Stage], encode: Tokenise,
    augmented: Callable[[], list[str]],
) -> dict[str, EncodedSplit]:  # fmt: skip
    """augmented: makes new texts; asked only where a stage reads them."""
    splits = {name: encode(rows.texts, targets[name]) for name, rows in corpus.splits.items()}
    labels = splits["train"].labels
    for kind, key in KEYS.items():
        if any(kind in stage.texts for stage in stages):
            texts = augmented() if kind == "augmented" else list(corpus.unlabelled)
            if not texts:
                raise UserError(f"a stage reads {kind} texts and there are none: set {key}.")
            splits[kind] = encode(texts, np.full((len(texts), *labels.shape[1:]), NO_LABEL, labels.dtype))
    return splits


def stage_rows(splits: Splits, stage: Stage) -> EncodedSplit:
    """What a stage trains on."""
    return joined([splits["train" if kind == "labelled" else kind] for kind in stage.texts])


def augmented_texts(augment: Augment, corpus: Corpus, task: Task, path: str, tokenizer: Any, cache: Path) -> list[str]:
    """New texts from the training texts, made once and read from the cache afterwards.

    path, tokenizer: of the model whose embeddings say which words are neighbours.
    """
    texts = [*corpus.train.texts, *corpus.unlabelled]
    held_out = [*corpus.validation.texts, *corpus.test.texts]

    def make() -> list[str]:
        log.info("making %d variants of each of %d texts …", augment.copies, len(texts))
        base = load.outline_classifier(path, corpus.labels, task.problem, "teacher.path")
        words = Neighbours(tokenizer, base.weight(base.model.get_input_embeddings().weight).detach())
        return augment.made(texts, words, held_out)

    return kept(cache / f"{digest(augment, path, texts, held_out)}.json", make)
