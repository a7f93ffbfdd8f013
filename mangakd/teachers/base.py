"""`TeacherProvider`: where a teacher's outputs come from. Live, stored and ensemble teachers are interchangeable.

A plain object, not an nn.Module child: so it is absent from state_dict, optimizer, DDP buckets, shard plans and checkpoints,
and strict loading of the student stays on.
"""

import hashlib
from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Any, ClassVar

import torch

from mangakd.core.outputs import Batch, Outputs
from mangakd.core.requires import Need
from mangakd.core.spec import ModelSpec
from mangakd.models.encoder import Encoder


class TeacherProvider(ABC):
    """Answers a batch with `Outputs`, without a graph and without dropout.

    spec: sizes, and the task's head. gives: what it can answer with.
    """

    spec: ModelSpec
    members: int = 1

    @property
    @abstractmethod
    def gives(self) -> Need:
        """What this provider can answer with; asked before training starts."""

    @property
    def encoders(self) -> list[Encoder]:
        """The live models behind it, which a sharded run spreads over its devices."""
        return []

    @property
    @abstractmethod
    def fingerprint(self) -> str:
        """Digest of everything the outputs depend on (weights, label order), for stores and checkpoints."""

    @abstractmethod
    def prepare(self, device: torch.device, need: Need) -> "TeacherProvider":
        """Move to `device` and tap what is needed."""

    @abstractmethod
    def __call__(self, batch: Batch) -> Outputs:
        """The teacher's outputs for `batch`, on the batch's device."""

    def __deepcopy__(self, memo: dict[int, Any]) -> "TeacherProvider":
        # Weight averaging deep-copies the LightningModule; the teacher must not be copied with it.
        return self


class SeveralProviders(TeacherProvider):
    """A teacher that asks several others, and gives answers alone. word: begins what its fingerprint is made of."""

    word: ClassVar[str]

    def __init__(self, providers: Sequence["TeacherProvider"]) -> None:
        self._providers = list(providers)

    @property
    def gives(self) -> Need:
        return Need(answer=True)

    @property
    def encoders(self) -> list[Encoder]:
        return [encoder for provider in self._providers for encoder in provider.encoders]

    @property
    def fingerprint(self) -> str:
        """Without the weights of the members, which are applied after their answers: one store serves every weighting."""
        return digest(self.word, *(provider.fingerprint for provider in self._providers))

    def prepare(self, device: torch.device, need: Need) -> "SeveralProviders":
        for provider in self._providers:
            provider.prepare(device, Need(answer=True))
        return self


def digest(*parts: object) -> str:
    return hashlib.sha256("\x1f".join(map(str, parts)).encode()).hexdigest()[:16]


def all_layers(spec: ModelSpec) -> Need:
    """Everything a live model can give."""
    return Need(True, frozenset(range(spec.layers + 1)), frozenset(range(1, spec.layers + 1)))
