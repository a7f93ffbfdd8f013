"""`Local`: answers of a language model on this machine."""

import hashlib
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

from mangakd.core.errors import UserError
from mangakd.core.spec import Head
from mangakd.data.chat import ChatTemplate, Mismatch
from mangakd.data.chat_tokens import LEFT_OUT, Marker
from mangakd.labelling.choices import Chooser
from mangakd.labelling.machine import BATCHES, KEY, OnThisMachine
from mangakd.labelling.provider import Answer, Request
from mangakd.models.generation import Sampling, Writer


@dataclass(kw_only=True)
class Local(OnThisMachine):
    """template: variables of the chat template."""

    head = Head("tokens", 0)
    template: Mapping[str, Any] = field(default_factory=dict)
    _own_chooser: Chooser | None = field(default=None, init=False, repr=False)

    @property
    def identity(self) -> Mapping[str, Any]:
        template = json.dumps([self._template.source, sorted(map(str, self._template.variables.items()))])
        return {**super().identity, "provider": "local", "template": hashlib.sha256(template.encode()).hexdigest()[:16]}

    def answers(
        self, requests: Sequence[Request], sampling: Sampling, done: int, advance: Callable[[int], object]
    ) -> Iterator[Sequence[Answer]]:
        """Batches are made of the same requests, whatever is done, so that a resumed file has the same bits.

        A request with choices is answered with one of them (choices.py).
        """
        for start, prompts in self._chunks(requests, sampling):
            skip = max(done - start, 0)
            if skip >= len(prompts):
                continue
            fitting = [i for i, prompt in enumerate(prompts) if prompt]
            answer = self._choose if requests[start].choices else self._write
            texts = answer([requests[start + i] for i in fitting], [prompts[i] for i in fitting], sampling)
            answers = [Answer("", "too long", 0)] * len(prompts)
            for i, text in zip(fitting, texts, strict=True):
                answers[i] = text
            advance(len(prompts) - skip)
            yield answers[skip:]

    def _write(self, requests: Sequence[Request], prompts: list[list[int]], sampling: Sampling) -> list[Answer]:
        seeds = [request.seed for request in requests]
        texts = self._writer.write(self._model, prompts, sampling, seeds, self.tokens)
        return [Answer(self._text(text.ids), "ended" if text.ended else "cut", len(text.ids)) for text in texts]

    def _choose(self, requests: Sequence[Request], prompts: list[list[int]], sampling: Sampling) -> list[Answer]:
        each = zip(requests, prompts, strict=True)
        return [
            self._chooser(request.choices).answer(self._model, prompt, sampling, request.seed)
            for request, prompt in each
        ]

    def _chooser(self, choices: tuple[str, ...]) -> Chooser:
        if self._own_chooser is None or tuple(self._own_chooser.choices) != choices:
            tokens = [self._tokenizer(choice, add_special_tokens=False)["input_ids"] for choice in choices]
            stops = self._writer.stops
            self._own_chooser = Chooser(choices, tokens, stops, self._writer.vocabulary, self.tokens)
        return self._own_chooser

    def _chunks(self, requests: Sequence[Request], sampling: Sampling) -> Iterator[tuple[int, list[list[int]]]]:
        """The place of each chunk's first request, and its prompts as tokens; [] for one that is too long."""
        positions = getattr(self._model.config, "max_position_embeddings", None) or 1 << 20
        most = self._most(requests[0], sampling) if requests else 0
        if most >= positions:
            raise UserError(
                f"max_new_tokens={most} leaves no room for a prompt: {KEY}={self.path} reads {positions} "
                "tokens. Lower max_new_tokens."
            )
        marker = Marker(self._tokenizer, self._template, positions - most)
        start, size, chunk = 0, 0, list[list[int]]()
        for i, request in enumerate(requests):
            ids = self._prompt(marker, request)
            if chunk and size + len(ids) + most > BATCHES * self.tokens:
                yield start, chunk
                start, size, chunk = i, 0, []
            chunk.append(ids)
            size += len(ids) + most
        if chunk:
            yield start, chunk

    def _most(self, request: Request, sampling: Sampling) -> int:
        """Tokens that may follow a prompt: of a choice its own and the end of the turn."""
        if not request.choices:
            return sampling.max_new_tokens
        return max(map(len, self._chooser(request.choices).tokens)) + 1

    def _prompt(self, marker: Marker, request: Request) -> list[int]:
        try:
            marked = marker.prompt(request.prompt)
        except Mismatch as error:
            raise UserError(f"a prompt cannot be asked: {error}. It is {request.prompt[-1][1]!r}.") from error
        return [] if marked.note & LEFT_OUT else marked.ids

    @cached_property
    def _template(self) -> ChatTemplate:
        return ChatTemplate.of(self._tokenizer, self.template)

    @cached_property
    def _writer(self) -> Writer:
        return Writer.of(self._model, self._tokenizer, self._ends)

    @property
    def _ends(self) -> list[int]:
        end = self._template.end_of_turn
        return [] if end is None else [self._tokenizer.convert_tokens_to_ids(end)]
