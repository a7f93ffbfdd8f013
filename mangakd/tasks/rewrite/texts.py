"""Texts that models write for rows of a split, with their scores (scores.py, search.py)."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from torch import Tensor

from mangakd.core.errors import UserError
from mangakd.core.outputs import TARGETS
from mangakd.data.encoded import EncodedSplit
from mangakd.data.rows import Rows
from mangakd.evaluation.generations import GREEDY, Example, Text
from mangakd.models.encoder import Encoder
from mangakd.models.sampling import Sampling, check_least
from mangakd.models.seq2seq_writer import Seq2SeqWriter
from mangakd.tasks.base import Samples
from mangakd.tasks.rewrite import encode
from mangakd.tasks.rewrite.scores import scored
from mangakd.tasks.rewrite.search import Index, Search


@dataclass(frozen=True)
class Options:
    """expansions: different texts for a row. beams: of the search for them. most, least: new tokens of a text."""

    expansions: int = 1
    beams: int = 1
    most: int = 64
    least: int = 0

    def __post_init__(self) -> None:
        for name in ("expansions", "beams"):
            value = getattr(self, name)
            if not isinstance(value, int) or isinstance(value, bool) or value < 1:
                raise UserError(f"task.{name}={value} must be a whole number from 1 on.")
        check_least(self.least, self.most, "task.min_new_tokens", "task.max_target_length")
        if self.expansions > self.beams:
            raise UserError(
                f"task.expansions={self.expansions} texts cannot come out of task.beams={self.beams}: set task.beams to "
                f"{self.expansions} or more."
            )


@dataclass(frozen=True)
class Scorer:
    """What the texts of each row of a split are compared with."""

    utterances: Sequence[str]
    turns: Sequence[tuple[str, ...]]
    targets: Sequence[tuple[str, ...]]
    index: Index | None

    @classmethod
    def of(cls, rows: Rows, search: Search) -> "Scorer":
        return cls(encode.utterances(rows), encode.turns(rows), encode.targets(rows), search.index(rows))

    def scores(self, i: int, texts: Sequence[str]) -> dict[str, float]:
        """Of what one system writes for row i."""
        own = scored(texts, self.targets[i], self.utterances[i])
        return own if self.index is None else own | self.index.scores(i, texts)

    def answers(self, places: np.ndarray, texts: Callable[[int], Sequence[str]]) -> dict[str, Tensor]:
        """As `Samples.answers` gives them, of a system without a model."""
        ways = [{GREEDY: Text("", self.scores(i, texts(i)))} for i in places.tolist()]
        return Samples([], 1, lambda model, advance: [], places).answers(ways, len(self.utterances))


def first_rows(split: EncodedSplit, count: int | None) -> np.ndarray:
    """The first row of each source, as further expansions have the same text; `count` of them, spread evenly, or all."""
    owners = np.arange(len(split)) if split.owners is None else split.owners
    firsts = np.sort(np.unique(owners, return_index=True)[1])
    if count is None or count >= len(firsts):
        return firsts
    return firsts[np.linspace(0, len(firsts) - 1, count, dtype=np.int64)]


def samples(split: EncodedSplit, places: np.ndarray, scorer: Scorer, tokenizer: Any, options: Options) -> Samples:
    """places: the rows to write for."""
    sources = [_source(split, i) for i in places.tolist()]

    def write(model: Encoder, advance: Callable[[int], object]) -> list[Mapping[str, Text]]:
        each = _written(model, sources, tokenizer, options, advance)
        return [_with_scores(texts, scorer.scores(i, texts)) for i, texts in zip(places.tolist(), each, strict=True)]

    examples = [Example("\n".join(scorer.turns[i]), "\n".join(scorer.targets[i])) for i in places.tolist()]
    return Samples(examples, 1, write, places)


def _source(split: EncodedSplit, i: int) -> list[int]:
    inputs = split.student.inputs(np.array([i]), 0)
    ids: list[int] = inputs["input_ids"][0, ~inputs[TARGETS][0]].tolist()
    return ids


def _written(
    model: Encoder, sources: list[list[int]], tokenizer: Any, options: Options, advance: Callable[[int], object]
) -> list[list[str]]:
    """The different texts for each source, the best first."""
    writer = Seq2SeqWriter.of(model.model, tokenizer)
    if options.beams == 1:
        sampling = Sampling(max_new_tokens=options.most, min_new_tokens=options.least)
        texts = [[text] for text in writer.write(model.model, sources, sampling, advance=advance)]
    else:
        beams = options.beams
        texts = writer.beams(
            model.model, sources, beams, beams, options.most, advance=advance, min_new_tokens=options.least
        )
    return [[*dict.fromkeys(_decoded(tokenizer, text.ids) for text in each)][: options.expansions] for each in texts]


def _decoded(tokenizer: Any, ids: Any) -> str:
    text: str = tokenizer.decode(ids, skip_special_tokens=True, clean_up_tokenization_spaces=False)
    return text.strip()


def _with_scores(texts: Sequence[str], scores: Mapping[str, float]) -> dict[str, Text]:
    """The scores are those of all texts of the row together, beside the first."""
    ways = [GREEDY, *map(str, range(2, len(texts) + 1))]
    return {way: Text(text, scores if way == GREEDY else {}) for way, text in zip(ways, texts, strict=True)}
