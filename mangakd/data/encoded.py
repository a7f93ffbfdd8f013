"""`EncodedSplit`: a tokenised split whose rows own one or more sequences, and the batches that are collated from it.

A classifier reads one sequence a row, a ranker as many pairs as a query has documents. Models see sequences; tasks, losses and
judges see rows, and `first` leads from one to the other. B rows, N rows of the split, S sequences, T tokens.
"""

from collections.abc import Callable, Mapping, Sequence
from functools import cached_property
from typing import NamedTuple, Protocol

import numpy as np
import torch
from torch import Tensor

from mangakd.core.outputs import LENGTHS, TARGETS, Batch
from mangakd.data.apart import Apart
from mangakd.data.chats import Chat, ChatOptions
from mangakd.data.rows import Rows
from mangakd.data.sampler import MicroBatch, Units
from mangakd.data.seq2seq import Pair, SourceOptions
from mangakd.data.tokens import Concatenation, Selection, Sequences


class Sides(NamedTuple):
    """Sequences as both models read them. `teacher` is `student` again when one tokenizer serves both. pads: padding ids.

    sources: whether an encoder reads the tokens before the targets, and a decoder the targets.
    """

    student: Sequences
    teacher: Sequences
    student_pad: int
    teacher_pad: int
    sources: bool = False

    @property
    def shared(self) -> bool:
        return self.teacher is self.student

    @property
    def of_teacher(self) -> "Sides":
        """The teacher's reading on both sides, for a teacher that is fine-tuned."""
        return Sides(self.teacher, self.teacher, self.teacher_pad, self.teacher_pad, self.sources)


class Tokenise(Protocol):
    """Texts as both models read them, and pairs of texts."""

    def __call__(self, texts: Sequence[str], /) -> Sides:
        """N sequences."""

    def pairs(self, first: Sequence[str], second: Sequence[str], where: Callable[[int], str] = ..., /) -> Sides:
        """S sequences, pair i of first[i] and second[i]. Each different text is tokenised once. Only the second is truncated.

        where: place of a pair → its row, such as `line 3 of data.path=train.jsonl`. Raises UserError for a first text that
        leaves no room for the second.
        """

    def chats(self, chats: Sequence[Chat], rows: Rows, options: ChatOptions, /) -> tuple[Sides, np.ndarray, np.ndarray]:
        """S sequences with target tokens, the same for both models; the row of each (S); and its number of target tokens (S).

        chats: of each row one. Raises UserError for rows that teach nothing (data/chats.py).
        """

    def targets(
        self, pairs: Sequence[Pair], rows: Rows, options: SourceOptions, /
    ) -> tuple[Sides, np.ndarray, np.ndarray]:
        """S sequences of source and target, the same for both models; the row of each (S); and its number of target tokens (S).

        rows: those that own the pairs (data/seq2seq.py).
        """


class EncodedSplit:
    """Micro-batches in, padded batches out.

    columns: name → (N, …), what losses and the judge read of a row, such as labels. units: unit of counting → (N), what losses
    count beside rows, sequences, tokens and cells (losses/base.py).
    first (N + 1) int64: row i owns the sequences from first[i] on, up to
    first[i + 1] and at least one; None where each row owns one.
    owners (N): the place of each row's source among the rows that were encoded; None where they are the same.
    """

    def __init__(
        self,
        sides: Sides,
        columns: Mapping[str, np.ndarray],
        units: Units | None = None,
        first: np.ndarray | None = None,
        owners: np.ndarray | None = None,
    ) -> None:
        self.sides, self.columns, self.first, self.owners = sides, dict(columns), first, owners
        self._units = dict(units or {})
        rows = len(sides.student) if first is None else len(first) - 1
        lengths = {name: len(values) for name, values in {**self.columns, **self._units}.items()}
        if any(length != rows for length in lengths.values()) or (
            first is not None and first[-1] != len(sides.student)
        ):
            raise ValueError(f"a split of {rows} rows and {len(sides.student)} sequences has columns of {lengths} rows")
        if first is not None and (np.diff(first) < 1).any():
            raise ValueError("each row must own a sequence")

    def __len__(self) -> int:
        return len(self.student) if self.first is None else len(self.first) - 1

    def __getitem__(self, micro: MicroBatch) -> Batch:
        return {**self.collate(micro.rows), "scale": micro.scale}

    def rows_of(self, rows: Rows) -> Rows:
        """For each row of the split the one that it was made of. rows: those that were encoded."""
        return rows if self.owners is None else rows.take(self.owners.tolist())

    @property
    def student(self) -> Sequences:
        return self.sides.student

    @property
    def teacher(self) -> Sequences:
        return self.sides.teacher

    @cached_property
    def units(self) -> Units:
        """What losses count, for each row (see losses/base)."""
        lengths = self.student.lengths.astype(np.int64)
        ones = np.ones(len(self), dtype=np.int64)
        counts = {"rows": ones, "sequences": ones, "tokens": lengths, "cells": lengths**2}
        if self.first is not None:
            counts["sequences"] = np.diff(self.first)
            counts |= {name: np.add.reduceat(counts[name], self.first[:-1]) for name in ("tokens", "cells")}
        return counts | self._units

    def lengths(self, tokens: Sequences) -> np.ndarray:
        """(N) tokens of each row's longest sequence.

        Batches are padded to their longest sequence, so that rows alike in it are padded least. The sum would put a row of many
        short sequences beside a row of one long sequence, and pad the short ones to its length.
        """
        return tokens.lengths if self.first is None else np.maximum.reduceat(tokens.lengths, self.first[:-1])

    @property
    def row_tokens(self) -> np.ndarray:
        """(N) tokens that each row takes at most in a batch whose longest sequence is its own.

        Rows that own several sequences count as if each had as many as the row with the most.
        """
        return self.lengths(self.student).astype(np.int64) * self.units["sequences"].max(initial=1)

    @property
    def decoder_tokens(self) -> np.ndarray | None:
        """(N) how many of a row's tokens a decoder reads, apart from those that an encoder reads; None without an encoder."""
        return self.units["targets"] if self.sides.sources else None

    @property
    def sequences(self) -> "EncodedSplit":
        """Each sequence as a row of its own, without columns: what a teacher answers and a store keeps."""
        return self if self.first is None else EncodedSplit(self.sides, {})

    @property
    def of_teacher(self) -> "EncodedSplit":
        """For a teacher that is fine-tuned: it must be given its own tokens as the student's."""
        return EncodedSplit(self.sides.of_teacher, self.columns, self._units, self.first)

    def extended(self, more: np.ndarray) -> "EncodedSplit":
        """Each row with further sequences after its own. more (N, K): positions of sequences, below 0 for none."""
        rows, places = np.nonzero(more >= 0)
        first = np.arange(len(self) + 1) if self.first is None else self.first
        owners = np.concatenate([np.repeat(np.arange(len(self)), np.diff(first)), rows])
        order = np.argsort(owners, kind="stable")
        positions = np.concatenate([np.arange(len(self.student)), more[rows, places]])[order]
        student = Selection(self.student, positions)
        teacher = student if self.sides.shared else Selection(self.teacher, positions)
        starts = np.concatenate([[0], np.cumsum(np.bincount(owners, minlength=len(self)))])
        return EncodedSplit(Sides(student, teacher, *self.sides[2:]), self.columns, self._units, starts)

    def take(self, rows: np.ndarray) -> "EncodedSplit":
        """Some of the rows."""
        if self.first is None:
            sequences, first = rows, None
        else:
            sequences = np.concatenate([np.arange(self.first[i], self.first[i + 1]) for i in rows])
            first = np.concatenate([[0], np.cumsum(np.diff(self.first)[rows])])
        student = Selection(self.student, sequences)
        teacher = student if self.sides.shared else Selection(self.teacher, sequences)
        columns, units = ({name: each[rows] for name, each in of.items()} for of in (self.columns, self._units))
        owners = None if self.owners is None else self.owners[rows]
        return EncodedSplit(Sides(student, teacher, *self.sides[2:]), columns, units, first, owners)

    def collate(self, rows: Sequence[int] | np.ndarray) -> Batch:
        """student, teacher: inputs (S, T). key (S): of the teacher's tokens. The columns, (B, …).

        first (B + 1): as in the split, for these rows; only where the split has it.
        next (P) int64: the target tokens of the student's sequences, one after the other; only where they have targets.
        """
        rows = np.asarray(rows)
        sequences, batch = rows, {}
        if self.first is not None:
            counts = self.first[rows + 1] - self.first[rows]
            ends = np.cumsum(counts)
            batch["first"] = torch.from_numpy(np.concatenate([[0], ends]))
            sequences = np.arange(ends[-1]) + np.repeat(self.first[rows] - (ends - counts), counts)
        student = self._inputs(self.student, sequences, self.sides.student_pad)
        teacher = student if self.sides.shared else self._inputs(self.teacher, sequences, self.sides.teacher_pad)
        if (targets := student.get(TARGETS)) is not None:
            batch["next"] = student["input_ids"][targets]
        columns = {name: torch.from_numpy(values[rows]) for name, values in self.columns.items()}
        key = torch.from_numpy(self.teacher.keys[sequences])
        return {"student": student, "teacher": teacher, **columns, **batch, "key": key}

    def _inputs(self, tokens: Sequences, sequences: np.ndarray, pad: int) -> dict[str, Tensor]:
        """The loader batches rows of similar length; sequences of a row differ, and models.by_length wants to know it."""
        lengths = {} if self.first is None else {LENGTHS: tokens.lengths[sequences]}
        return {name: torch.from_numpy(each) for name, each in {**tokens.inputs(sequences, pad), **lengths}.items()}


def joined(splits: Sequence[EncodedSplit]) -> EncodedSplit:
    """Several splits of the same columns one after the other."""
    if len(splits) == 1:
        return splits[0]
    student = _sequences([split.student for split in splits])
    shared = all(split.sides.shared for split in splits)
    teacher = student if shared else _sequences([split.teacher for split in splits])
    columns = {name: _stacked([split.columns[name] for split in splits]) for name in splits[0].columns}
    units = {name: np.concatenate([split.units[name] for split in splits]) for name in splits[0]._units}
    return EncodedSplit(Sides(student, teacher, *splits[0].sides[2:]), columns, units, _first(splits))


def _sequences(parts: list[Sequences]) -> Sequences:
    apart = [part for part in parts if isinstance(part, Apart)]
    return Apart.joined(apart) if len(apart) == len(parts) else Concatenation(parts)


def _stacked(parts: Sequence[np.ndarray]) -> np.ndarray:
    """(N, …) of several splits. Lists (N, G) are padded with NaN to the longest."""
    widths = {part.shape[1:] for part in parts}
    if len(widths) > 1:
        longest = max(width for (width,) in widths)
        parts = [np.pad(part, ((0, 0), (0, longest - part.shape[1])), constant_values=np.nan) for part in parts]
    return np.concatenate(parts)


def _first(splits: Sequence[EncodedSplit]) -> np.ndarray | None:
    if all(split.first is None for split in splits):
        return None
    counts = [np.ones(len(s), dtype=np.int64) if s.first is None else np.diff(s.first) for s in splits]
    return np.concatenate([[0], np.cumsum(np.concatenate(counts))])
