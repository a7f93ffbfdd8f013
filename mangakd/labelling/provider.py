"""`Provider`: who answers prompts. A model on this machine is one (local.py)."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Literal, Protocol, runtime_checkable

import numpy as np

from mangakd.data.rows import Messages
from mangakd.models.sampling import Sampling

Reason = Literal["ended", "cut", "too long", "refused", "failed"]
"""ended: the model ended the text. cut: max_new_tokens did. too long: the prompt leaves no room for an answer. refused: the
provider says that the model or a content filter declined. failed: no answer came after all attempts."""


@dataclass(frozen=True)
class Request:
    """prompt: a conversation that ends with a question; of an encoder–decoder its turns. seed: of its random numbers.

    schema: JSON schema that the answer follows. choices: texts of which the answer is one, such as names of labels; their
    log-probabilities are wanted. A model on this machine gives those of the whole choices (see `Answer.logprobs`).
    """

    prompt: Messages
    seed: int
    schema: Mapping[str, Any] | None = None
    choices: tuple[str, ...] = ()


@dataclass(frozen=True)
class Answer:
    """tokens: how many the answer has. more: other texts of a beam, the better first.

    thought: what a reasoning model wrote before its answer, where the provider gives it apart. logprobs: for each token of the
    answer its likeliest alternatives, token text → log-probability in nats; empty where the provider offers none. A provider that
    computes the log-probabilities of the request's choices as whole texts gives one mapping, choice → log-probability.
    """

    text: str
    reason: Reason
    tokens: int
    more: tuple[str, ...] = ()
    thought: str = ""
    logprobs: tuple[Mapping[str, float], ...] = ()


class Provider(ABC):
    """remembers: it keeps its answers itself, so that asking again costs nothing and `out` is written anew by each command."""

    remembers: ClassVar[bool] = False

    @property
    @abstractmethod
    def identity(self) -> Mapping[str, Any]:
        """What the answers depend on beside prompt, seed and sampling: plain values, written beside each answer."""

    @abstractmethod
    def answers(
        self, requests: Sequence[Request], sampling: Sampling, done: int, advance: Callable[[int], object]
    ) -> Iterator[Sequence[Answer]]:
        """The answers from request `done` on, in the order of the requests, as many at a time as are ready together.

        An answer does not depend on `done`. advance: called with the number of answers that were written.
        """


@runtime_checkable
class Embedder(Protocol):
    """Who gives vectors of texts: an encoder on this machine (encoder.py), or an API's endpoint for embeddings.

    identity: what the vectors depend on beside the texts. vectors: (N, D) of N texts, in their order, as float32. remembers: it
    keeps what is paid for itself, so that it is asked for all texts at once; `ledger_entry` is then what a manifest says of that.
    """

    remembers: ClassVar[bool]

    @property
    def ledger_entry(self) -> Mapping[str, Any] | None: ...

    @property
    def identity(self) -> Mapping[str, Any]: ...

    def vectors(self, texts: Sequence[str]) -> np.ndarray: ...
