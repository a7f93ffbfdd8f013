"""`Encoder`: vectors of texts by an encoder on this machine, such as a folder of sentence-transformers."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, ClassVar

import numpy as np
import torch

from mangakd.core.errors import UserError
from mangakd.labelling.machine import DTYPES, KEY
from mangakd.models import encoder as models
from mangakd.models import load
from mangakd.models.generation import TOKENS, in_batches
from mangakd.models.outline import weights_digest
from mangakd.models.trial import check_numbers


@dataclass(kw_only=True)
class Encoder:
    """path: hub id or folder; its pooling is read, the mean of all tokens where it has none. max_length: of a text in tokens; a
    longer text loses its end. tokens: of a batch at most.

    key: what sets the path, for messages. Raises UserError for a model that cannot be loaded.
    """

    remembers: ClassVar[bool] = False
    ledger_entry: ClassVar[None] = None
    path: str
    dtype: str = "float32"
    max_length: int = 512
    tokens: int = TOKENS
    key: str = KEY

    def __post_init__(self) -> None:
        if self.dtype not in DTYPES:
            raise UserError(f"provider.dtype={self.dtype} must be one of {', '.join(DTYPES)}.")
        for name in ("max_length", "tokens"):
            value = getattr(self, name)
            if not isinstance(value, int) or value < 1:
                raise UserError(f"provider.{name}={value} must be a whole number from 1 on.")

    @property
    def identity(self) -> Mapping[str, Any]:
        return {
            "provider": "encoder", "model": self.path, "weights": weights_digest(self._model.model),
            "tokenizer": load.vocabulary_digest(self._tokenizer), "dtype": self.dtype, "max_length": self.max_length,
        }  # fmt: skip

    def vectors(self, texts: Sequence[str]) -> np.ndarray:
        """(N, D) float32, texts of one length together."""
        device = next(self._model.parameters()).device
        longest = min(self.max_length, load.positions(self._model.model) or self.max_length)
        rows = self._tokenizer([*texts], truncation=True, max_length=longest)
        lengths = [len(row) for row in rows["input_ids"]]
        table: np.ndarray | None = None
        for places in in_batches(lengths, [0] * len(texts), self.tokens, longest):
            chosen = {name: [cells[i] for i in places] for name, cells in rows.items()}
            inputs = self._tokenizer.pad(chosen, return_tensors="pt").to(device)
            with torch.no_grad():
                answer = self._model(dict(inputs)).answer.float().cpu().numpy()
            table = np.empty((len(texts), answer.shape[1]), np.float32) if table is None else table
            table[places] = answer
        return np.empty((0, 0), np.float32) if table is None else table

    @cached_property
    def _tokenizer(self) -> Any:
        return load.load_tokenizer(self.path, self.key, "vector")

    @cached_property
    def _model(self) -> models.Encoder:
        outline = load.outline_trained(self.path, self.key, "vector")
        assert outline is not None  # every encoder has a head of vectors
        model = load.read_model(outline, self.path, self.key, getattr(torch, self.dtype))
        encoder = load.encoder(model, outline.head, self.path, self._tokenizer)
        check_numbers(encoder, self._tokenizer, f"{self.key}={self.path}")
        mps = torch.backends.mps.is_available()
        return encoder.to("cuda" if torch.cuda.is_available() else "mps" if mps else "cpu").eval()
