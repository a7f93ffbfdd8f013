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
from mangakd.labelling.machine import BATCHES, KEY, OnThisMachine
from mangakd.labelling.provider import Answer, Request
from mangakd.models.generation import Sampling, Writer


@dataclass(kw_only=True)
class Local(OnThisMachine):
    """template: variables of the chat template."""

    head = Head("tokens", 0)
    template: Mapping[str, Any] = field(default_factory=dict)

    @property
    def identity(self) -> Mapping[str, Any]:
        template = json.dumps([self._template.source, sorted(map(str, self._template.variables.items()))])
        return {**super().identity, "provider": "local", "template": hashlib.sha256(template.encode()).hexdigest()[:16]}

    def answers(
        self, requests: Sequence[Request], sampling: Sampling, done: int, advance: Callable[[int], object]
    ) -> Iterator[Sequence[Answer]]:
        """Batches are made of the same requests, whatever is done, so that a resumed file has the same bits."""
        writer = Writer.of(self._model, self._tokenizer, self._ends)
        for start, prompts in self._chunks(requests, sampling):
            skip = max(done - start, 0)
            if skip >= len(prompts):
                continue
            fitting = [i for i, prompt in enumerate(prompts) if prompt]
            seeds = [requests[start + i].seed for i in fitting]
            texts = writer.write(self._model, [prompts[i] for i in fitting], sampling, seeds, self.tokens)
            answers = [Answer("", "too long", 0)] * len(prompts)
            for i, text in zip(fitting, texts, strict=True):
                words = self._tokenizer.decode(text.ids, skip_special_tokens=True, clean_up_tokenization_spaces=False)
                answers[i] = Answer(words.strip(), "ended" if text.ended else "cut", len(text.ids))
            advance(len(prompts) - skip)
            yield answers[skip:]

    def _chunks(self, requests: Sequence[Request], sampling: Sampling) -> Iterator[tuple[int, list[list[int]]]]:
        """The place of each chunk's first request, and its prompts as tokens; [] for one that is too long."""
        positions = getattr(self._model.config, "max_position_embeddings", None) or 1 << 20
        if sampling.max_new_tokens >= positions:
            raise UserError(
                f"max_new_tokens={sampling.max_new_tokens} leaves no room for a prompt: {KEY}={self.path} reads {positions} "
                "tokens. Lower max_new_tokens."
            )
        marker = Marker(self._tokenizer, self._template, positions - sampling.max_new_tokens)
        start, size, chunk = 0, 0, list[list[int]]()
        for i, request in enumerate(requests):
            ids = self._prompt(marker, request)
            if chunk and size + len(ids) + sampling.max_new_tokens > BATCHES * self.tokens:
                yield start, chunk
                start, size, chunk = i, 0, []
            chunk.append(ids)
            size += len(ids) + sampling.max_new_tokens
        if chunk:
            yield start, chunk

    def _prompt(self, marker: Marker, request: Request) -> list[int]:
        try:
            marked = marker.prompt(request.prompt)
        except Mismatch as error:
            raise UserError(f"a prompt cannot be asked: {error}. It is {request.prompt[-1][1]!r}.") from error
        return [] if marked.note & LEFT_OUT else marked.ids

    @cached_property
    def _template(self) -> ChatTemplate:
        return ChatTemplate.of(self._tokenizer, self.template)

    @property
    def _ends(self) -> list[int]:
        end = self._template.end_of_turn
        return [] if end is None else [self._tokenizer.convert_tokens_to_ids(end)]
