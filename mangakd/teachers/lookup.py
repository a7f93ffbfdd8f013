"""`LookupTeacher`: the answers of a teacher that a file keeps. No model answers in this run.

The file has the answers by text (scores.py, vectors.py). In a batch they are found by the hash of a sequence's tokens, like those
of a store (cached.py), so that shuffling never misaligns them.
"""

import hashlib
import logging
from abc import abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import islice
from pathlib import Path
from typing import ClassVar, NamedTuple

import numpy as np
import torch

from mangakd.core.errors import UserError
from mangakd.core.outputs import Batch, Outputs
from mangakd.core.requires import Need
from mangakd.core.spec import Head, Kind, ModelSpec
from mangakd.data.notices import short
from mangakd.data.sequence_texts import SequenceTexts, Texts, identities_of
from mangakd.teachers.base import TeacherProvider, digest
from mangakd.teachers.options import Member, TeacherContext, TeacherOptions

log = logging.getLogger(__name__)
KEY = "teacher.path"
SHOWN = 3  # texts without an answer, in a message
_ROWS = 4096  # of a fingerprint, at a time


class LookupTeacher(TeacherProvider):
    """keys (N) int64: of sequences, as in a batch. places (N): the row of each in answers (U, C).

    answers may be memory-mapped. spec: its name and head; there are no layers.
    """

    def __init__(self, keys: np.ndarray, places: np.ndarray, answers: np.ndarray, spec: ModelSpec) -> None:
        self.spec = spec
        self._keys, first, own = np.unique(keys, return_index=True, return_inverse=True)
        self._places, self._answers = places[first], answers
        if other := int((self._places[own] != places).sum()):
            log.info("%s: %d texts have the tokens of another text, whose answer they get.", spec.name, other)

    @property
    def gives(self) -> Need:
        return Need(answer=True)

    @cached_property
    def fingerprint(self) -> str:
        content = hashlib.sha256(self._keys.tobytes())
        for start in range(0, len(self._places), _ROWS):
            content.update(self._rows(self._places[start : start + _ROWS]).tobytes())
        return digest(content.hexdigest())

    def prepare(self, device: torch.device, need: Need) -> "LookupTeacher":
        return self

    def __call__(self, batch: Batch) -> Outputs:
        """The answers (S, C). Raises KeyError for a sequence of another split than those it was made for."""
        key, mask = batch["key"], batch["teacher"]["attention_mask"]
        batch_keys = key.cpu().numpy()
        at = np.minimum(np.searchsorted(self._keys, batch_keys), len(self._keys) - 1)
        if (self._keys[at] != batch_keys).any():
            raise KeyError(f"{self.spec.name}: a sequence without an answer")
        answer = torch.from_numpy(self._rows(self._places[at])).to(key.device)
        return Outputs.of(self.spec.head.kind, answer, mask)

    def _rows(self, places: np.ndarray) -> np.ndarray:
        return np.asarray(self._answers[places], np.float32)


class Answers(NamedTuple):
    """places: a sequence's texts (`identities_of`) → its row in table (U, C)."""

    places: Mapping[Texts, int]
    table: np.ndarray


@dataclass(kw_only=True)
class LookupOptions(TeacherOptions):
    """path: of the file. A subclass says what it holds, `nouns` for heads of `kind`, of sequences of one text or of a pair."""

    reads_new_texts: ClassVar[bool] = False
    noun: ClassVar[str]
    nouns: ClassVar[str]
    kind: ClassVar[Kind]
    pairs: ClassVar[bool]

    @property
    @abstractmethod
    def answers(self) -> Answers:
        """What the file holds, read once. Raises UserError for a file that cannot be used."""

    @property
    def models(self) -> list[Member]:
        return []

    @property
    def name(self) -> str:
        """Such as `scores of run.trec`."""
        return f"{self.nouns} of {Path(self.path).name}"

    def gives(self, spec: ModelSpec) -> Need:
        return Need(answer=True)

    def check(self, texts: Mapping[str, SequenceTexts]) -> None:
        for split, each in texts.items():
            self._places(split, each)

    def provider(self, context: TeacherContext) -> LookupTeacher:
        keys = [split.teacher.keys for split in context.splits.values()]
        places = [self._places(name, context.texts[name]) for name in context.splits]
        head = self.head(context.head, [])
        return LookupTeacher(
            np.concatenate(keys), np.concatenate(places), self.table(head), ModelSpec(self.name, 0, 0, 0, head)
        )

    def table(self, head: Head) -> np.ndarray:
        """(U, C) answers of the head."""
        return self.answers.table

    def _places(self, split: str, texts: SequenceTexts) -> np.ndarray:
        """(S) rows of the table, of all sequences of a split. Raises UserError where some have no answer."""
        places = np.fromiter((self.answers.places.get(key, -1) for key in self._keys(texts)), np.int64)
        if lacking := int((places < 0).sum()):
            sequences = zip(texts, places, strict=True)
            first = islice((sequence for sequence, place in sequences if place < 0), SHOWN)
            examples = "; ".join(f"{' with '.join(map(short, each))} ({texts.rows.where(i)})" for i, each in first)
            what = "pairs" if self.pairs else "texts"
            raise UserError(
                f"{KEY}={self.path} has no {self.noun} for {lacking} of the {len(places)} {what} of {split}: {examples}"
                f"{'; …' if lacking > SHOWN else ''}. Add them to the file, or leave these rows out."
            )
        return places

    def _keys(self, texts: SequenceTexts) -> Iterator[Texts]:
        for _, each in texts:
            if len(each) != 1 + self.pairs:
                of = "a query and its documents" if self.pairs else "single texts"
                raise UserError(
                    f"teacher={type(self).__name__.lower()} gives {self.nouns} of {of}, and this task reads "
                    f"{'single texts' if self.pairs else 'pairs of texts'}. Choose another teacher."
                )
            yield identities_of(each)

    def head(self, task: Head, models: Sequence[Head]) -> Head:
        if task.kind != self.kind:
            raise UserError(
                f"teacher={type(self).__name__.lower()} gives {self.nouns}, and the task's head is {task}. Choose another "
                "teacher."
            )
        return task
