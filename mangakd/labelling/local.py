"""`Local`: answers of a language model on this machine."""

import hashlib
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import torch

from mangakd.core.errors import UserError
from mangakd.core.spec import Head
from mangakd.data.chat import ChatTemplate, Mismatch
from mangakd.data.chat_tokens import LEFT_OUT, Marker
from mangakd.labelling.provider import Answer, Provider, Request
from mangakd.models import load
from mangakd.models.encoder import Encoder
from mangakd.models.generation import TOKENS, Sampling, Writer
from mangakd.models.outline import weights_digest
from mangakd.models.trial import check_numbers

KEY = "provider.path"
DTYPES = ("float32", "bfloat16", "float16")
BATCHES = 4  # written together to the file: the rows in them are sorted by length


@dataclass(kw_only=True)
class Local(Provider):
    """path: hub id, folder or `embedded_lm`. dtype: of the weights; in float32 alone a text never depends on its batch.

    template: variables of the chat template. tokens: of a batch at most (models/generation.py).
    Raises UserError for a model that cannot be loaded, or that answers with what is no number.
    """

    path: str
    dtype: str = "float32"
    template: Mapping[str, Any] = field(default_factory=dict)
    tokens: int = TOKENS

    def __post_init__(self) -> None:
        if self.dtype not in DTYPES:
            raise UserError(f"provider.dtype={self.dtype} must be one of {', '.join(DTYPES)}.")
        if not isinstance(self.tokens, int) or self.tokens < 1:
            raise UserError(f"provider.tokens={self.tokens} must be a whole number from 1 on.")

    @property
    def identity(self) -> Mapping[str, Any]:
        template = json.dumps([self._template.source, sorted(map(str, self._template.variables.items()))])
        return {
            "provider": "local",
            "model": self.path,
            "weights": self._weights,
            "tokenizer": load.vocabulary_digest(self._tokenizer),
            "template": hashlib.sha256(template.encode()).hexdigest()[:16],
            "dtype": self.dtype,
            "tokens_of_a_batch": self.tokens,
        }

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
    def _tokenizer(self) -> Any:
        return load.load_tokenizer(self.path, KEY, "tokens")

    @cached_property
    def _template(self) -> ChatTemplate:
        return ChatTemplate.of(self._tokenizer, self.template)

    @property
    def _ends(self) -> list[int]:
        end = self._template.end_of_turn
        return [] if end is None else [self._tokenizer.convert_tokens_to_ids(end)]

    @cached_property
    def _encoder(self) -> Encoder:
        head = Head("tokens", 0)
        model = load.read_model(load.outline_for(self.path, head, KEY), self.path, KEY, getattr(torch, self.dtype))
        encoder = load.encoder(model, head, self.path, self._tokenizer)
        return check_numbers(encoder, self._tokenizer, f"{KEY}={self.path}")

    @cached_property
    def _weights(self) -> str:
        return weights_digest(self._encoder.model)

    @cached_property
    def _model(self) -> Any:
        mps = torch.backends.mps.is_available()
        return self._encoder.model.to("cuda" if torch.cuda.is_available() else "mps" if mps else "cpu")
