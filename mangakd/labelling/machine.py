"""What models have in common that write on this machine: how they are loaded, and what says which model wrote a text."""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any, ClassVar

import torch

from mangakd.core.errors import UserError
from mangakd.core.spec import Head
from mangakd.labelling.provider import Provider
from mangakd.models import load
from mangakd.models.encoder import Encoder
from mangakd.models.generation import TOKENS
from mangakd.models.outline import weights_digest
from mangakd.models.trial import check_numbers

KEY = "provider.path"
DTYPES = ("float32", "bfloat16", "float16")
BATCHES = 4  # written together to the file: the rows in them are sorted by length


@dataclass(kw_only=True)
class OnThisMachine(Provider):
    """path: hub id, folder or `embedded_lm`. dtype: of the weights; in float32 alone a text never depends on its batch.

    tokens: of a batch at most (models/generation.py).
    Raises UserError for a model that cannot be loaded, or that answers with what is no number.
    """

    head: ClassVar[Head]
    path: str
    dtype: str = "float32"
    tokens: int = TOKENS

    def __post_init__(self) -> None:
        if self.dtype not in DTYPES:
            raise UserError(f"provider.dtype={self.dtype} must be one of {', '.join(DTYPES)}.")
        if not isinstance(self.tokens, int) or self.tokens < 1:
            raise UserError(f"provider.tokens={self.tokens} must be a whole number from 1 on.")

    @property
    def identity(self) -> Mapping[str, Any]:
        return {
            "model": self.path,
            "weights": self._weights,
            "tokenizer": load.vocabulary_digest(self._tokenizer),
            "dtype": self.dtype,
            "tokens_of_a_batch": self.tokens,
        }

    def _text(self, ids: list[int]) -> str:
        words: str = self._tokenizer.decode(ids, skip_special_tokens=True, clean_up_tokenization_spaces=False)
        return words.strip()

    @cached_property
    def _tokenizer(self) -> Any:
        return load.load_tokenizer(self.path, KEY, "tokens")

    @cached_property
    def _encoder(self) -> Encoder:
        model = load.read_model(load.outline_for(self.path, self.head, KEY), self.path, KEY, getattr(torch, self.dtype))
        encoder = load.encoder(model, self.head, self.path, self._tokenizer)
        return check_numbers(encoder, self._tokenizer, f"{KEY}={self.path}")

    @cached_property
    def _weights(self) -> str:
        return weights_digest(self._encoder.model)

    @cached_property
    def _model(self) -> Any:
        mps = torch.backends.mps.is_available()
        return self._encoder.model.to("cuda" if torch.cuda.is_available() else "mps" if mps else "cpu")
