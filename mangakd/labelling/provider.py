"""`Provider`: who answers prompts. A model on this machine is one (local.py)."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from mangakd.data.rows import Messages
from mangakd.models.generation import Sampling

Reason = Literal["ended", "cut", "too long"]
"""ended: the model ended the text. cut: max_new_tokens did. too long: the prompt leaves no room for an answer."""


@dataclass(frozen=True)
class Request:
    """prompt: a conversation that ends with a question; of an encoder–decoder its turns. seed: of its random numbers."""

    prompt: Messages
    seed: int


@dataclass(frozen=True)
class Answer:
    """tokens: how many the answer has. more: other texts of a beam, the better first."""

    text: str
    reason: Reason
    tokens: int
    more: tuple[str, ...] = ()


class Provider(ABC):
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
