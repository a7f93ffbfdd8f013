"""`Members`: the models of a run's teacher. Each is fine-tuned and digested once, and read once while it is in use."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from typing import Any
from weakref import WeakValueDictionary

import torch

from mangakd.core.spec import Head
from mangakd.models import load
from mangakd.models.encoder import Encoder
from mangakd.models.outline import Outline
from mangakd.models.trial import check_numbers
from mangakd.teachers.local import Unread
from mangakd.teachers.options import Member

KEY = "teacher.path"


@dataclass(frozen=True)
class _Fitted:
    """dtype: of the weights that answer."""

    outline: Outline
    dtype: torch.dtype
    unread: Unread


class Members:
    """fit: a member → its outline with a head for the task. dtype: of a checkpoint → of the weights that answer.

    source: a member whose layers a student takes. It stays in memory until `checkpoint` has given it.
    """

    def __init__(
        self, fit: Callable[[Member], Outline], tokenizer: Any, dtype: Callable[[torch.dtype], torch.dtype], attention: str,
        source: Member | None = None, packing: bool = False,
    ) -> None:  # fmt: skip
        self._fit, self._tokenizer, self._dtype = fit, tokenizer, dtype
        self._attention, self._packing = attention, packing
        self._encoders: WeakValueDictionary[tuple[Member, torch.dtype], Encoder] = WeakValueDictionary()
        self._source = source
        self._held: Encoder | None = None
        self._fitted = cache(self._prepare)

    def _prepare(self, member: Member) -> _Fitted:
        outline = self._fit(member)
        dtype = self._dtype(outline.dtype)
        spec = self._encoder(outline.model, outline.head).spec
        return _Fitted(outline, dtype, Unread(spec, outline.digest(dtype), lambda: self.read(member)))

    def _encoder(self, model: Any, head: Head) -> Encoder:
        encoder = load.encoder(model, head, f"teacher {model.config.model_type}", self._tokenizer)
        return encoder.attend_with(self._attention)

    def unread(self, member: Member) -> Unread:
        """The member with its digest; fine-tunes it first if its head is new."""
        return self._fitted(member).unread

    def where(self, member: Member) -> str:
        """Folder or hub id of the weights that answer; of a member that was fine-tuned, its folder in the cache."""
        return self._fitted(member).outline.where

    def read(self, member: Member) -> Encoder:
        """The member as it answers."""
        return self._read(member, self._fitted(member).dtype)

    def checkpoint(self, member: Member, anew: bool = False) -> Encoder:
        """The member in the dtype of its checkpoint, to copy layers from. anew: not the one in use."""
        if anew:
            self._encoders.clear()
        encoder = self._read(member, self._fitted(member).outline.dtype)
        self._source = self._held = None
        return encoder

    def _read(self, member: Member, dtype: torch.dtype) -> Encoder:
        outline = self._fitted(member).outline
        if (encoder := self._encoders.get((member, dtype))) is None:
            model = load.read_model(outline, member.path, KEY, dtype)
            encoder = check_numbers(self._encoder(model, outline.head), self._tokenizer, f"{KEY}={member.path}")
            encoder.pack(self._packing)
            self._encoders[member, dtype] = encoder
        if member == self._source and dtype == outline.dtype:
            self._held = encoder
        return encoder
