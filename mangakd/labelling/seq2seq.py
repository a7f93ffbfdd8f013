"""`Seq2Seq`: texts of an encoder–decoder on this machine, such as T5, for the turns of conversations."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from mangakd.core.errors import UserError
from mangakd.core.spec import Head
from mangakd.data.seq2seq import LONG_SOURCE, TURNS, Reader, SourceOptions
from mangakd.labelling.machine import BATCHES, OnThisMachine
from mangakd.labelling.provider import Answer, Request
from mangakd.models.generation import Sampling, Written
from mangakd.models.seq2seq_writer import Seq2SeqWriter


@dataclass(kw_only=True)
class Seq2Seq(OnThisMachine):
    """separator, template: how turns become the text that is read, as in task.rewrite. max_length: of it in tokens.

    beams: 1 takes the most probable token, or draws; more search, and the `best` different texts are written.
    Raises UserError also for an option outside its range.
    """

    head = Head("tokens", 0, source=True)
    separator: str = " ||| "
    template: str = TURNS
    max_length: int = 512
    beams: int = 1
    best: int = 1

    def __post_init__(self) -> None:
        super().__post_init__()
        for name in ("max_length", "beams", "best"):
            value = getattr(self, name)
            if not isinstance(value, int) or isinstance(value, bool) or value < 1:
                raise UserError(f"provider.{name}={value} must be a whole number from 1 on.")
        if self.best > self.beams:
            raise UserError(
                f"provider.best={self.best} texts cannot come out of provider.beams={self.beams}: set provider.beams to "
                f"{self.best} or more."
            )
        self._options = SourceOptions(self.separator, self.template)

    @property
    def identity(self) -> Mapping[str, Any]:
        own = {name: getattr(self, name) for name in ("separator", "template", "max_length", "beams", "best")}
        return {**super().identity, "provider": "seq2seq", **own}

    def answers(
        self, requests: Sequence[Request], sampling: Sampling, done: int, advance: Callable[[int], object]
    ) -> Iterator[Sequence[Answer]]:
        """Batches are made of the same requests, whatever is done, so that a resumed file has the same bits."""
        if self.beams > 1 and sampling.draws:
            raise UserError(
                f"provider.beams={self.beams} search, and temperature={sampling.temperature} draws. Set temperature=0, or "
                "provider.beams=1."
            )
        reader = Reader(self._tokenizer, self._options, self.max_length)
        for start, sources in self._chunks(reader, requests, sampling.max_new_tokens):
            skip = max(done - start, 0)
            if skip >= len(sources):
                continue
            fitting = [i for i, source in enumerate(sources) if source]
            seeds = [requests[start + i].seed for i in fitting]
            answers = [Answer("", "too long", 0)] * len(sources)
            for i, texts in zip(fitting, self._write([sources[i] for i in fitting], sampling, seeds), strict=True):
                answers[i] = self._answer(texts)
            advance(len(sources) - skip)
            yield answers[skip:]

    def _chunks(self, reader: Reader, requests: Sequence[Request], most: int) -> Iterator[tuple[int, list[list[int]]]]:
        """The place of each chunk's first request, and its sources as tokens; [] for one that is too long."""
        start, size, chunk = 0, 0, list[list[int]]()
        for i, request in enumerate(requests):
            ids, note = reader.source([text for _, text in request.prompt])
            ids = [] if note & LONG_SOURCE else ids
            cost = self.beams * (len(ids) + most)
            if chunk and size + cost > BATCHES * self.tokens:
                yield start, chunk
                start, size, chunk = i, 0, []
            chunk.append(ids)
            size += cost
        if chunk:
            yield start, chunk

    def _write(self, sources: list[list[int]], sampling: Sampling, seeds: list[int]) -> list[list[Written]]:
        writer = Seq2SeqWriter.of(self._model, self._tokenizer)
        if self.beams == 1:
            return [[each] for each in writer.write(self._model, sources, sampling, seeds, self.tokens)]
        # Twice the texts that are wanted, where there are as many beams: some differ in their tokens alone.
        count = min(2 * self.best, self.beams)
        least = sampling.min_new_tokens
        return writer.beams(
            self._model, sources, self.beams, count, sampling.max_new_tokens, self.tokens, min_new_tokens=least
        )

    def _answer(self, texts: Sequence[Written]) -> Answer:
        """The `best` different texts that ended, or the first text where none did."""
        ended = [each for each in texts if each.ended] or texts[:1]
        first, *more = dict.fromkeys(self._text(each.ids) for each in ended)
        tokens = len(ended[0].ids)
        return Answer(first, "ended" if ended[0].ended else "cut", tokens, tuple(filter(None, more))[: self.best - 1])
