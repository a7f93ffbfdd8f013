"""How texts are drawn from a language model, and from which seed. Without torch: a command that asks an API starts at once."""

import hashlib
import json
from dataclasses import dataclass

from mangakd.core.errors import UserError


@dataclass(frozen=True)
class Sampling:
    """temperature: 0 takes the most probable token; above 0, tokens are drawn from softmax(logits / temperature).

    top_p: tokens are drawn from the most probable ones, whose probabilities add up to it, in (0, 1].
    max_new_tokens: a text ends here if the model has not ended it. min_new_tokens: a text does not end before it has so many.
    Raises UserError for an option outside its range.
    """

    temperature: float = 0.0
    top_p: float = 1.0
    max_new_tokens: int = 256
    min_new_tokens: int = 0

    def __post_init__(self) -> None:
        if not 0 <= self.temperature < float("inf"):
            raise UserError(f"temperature={self.temperature} must be 0 (the most probable token) or above.")
        if not 0 < self.top_p <= 1:
            raise UserError(f"top_p={self.top_p} must be in (0, 1].")
        if not isinstance(self.max_new_tokens, int) or self.max_new_tokens < 1:
            raise UserError(f"max_new_tokens={self.max_new_tokens} must be a whole number from 1 on.")
        check_least(self.min_new_tokens, self.max_new_tokens)

    @property
    def draws(self) -> bool:
        return self.temperature > 0


def check_least(least: int, most: int, key: str = "min_new_tokens", of_most: str = "max_new_tokens") -> None:
    """Raises UserError for a minimum of new tokens that is no number, or that no text can have. key, of_most: their options."""
    if not isinstance(least, int) or isinstance(least, bool) or not 0 <= least <= most:
        raise UserError(f"{key}={least} must be a whole number from 0 to {of_most}={most}.")


GREEDY = Sampling()


def seed_of(*parts: object) -> int:
    """The seed of a text, from what it depends on: numbers and texts."""
    return int.from_bytes(hashlib.sha256(json.dumps(parts).encode()).digest()[:8], "big")
