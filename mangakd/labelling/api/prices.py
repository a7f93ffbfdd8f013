"""What tokens cost, and how many tokens a text has before anybody has counted them."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Self

from mangakd.core.errors import UserError
from mangakd.labelling.api.wire import Usage

MILLION = 1_000_000
WIDE = "\u2e80"  # East Asian characters are from here on
_FIELDS = ("input", "output", "cached", "batch")


@dataclass(frozen=True)
class Price:
    """Of a million tokens. cached: of the part of a prompt that the provider reads from a cache. batch: factor of batch APIs.

    currency, date, source: of the table; "set by provider.price" for a price that the user gives.
    """

    input: float
    output: float
    cached: float
    batch: float = 0.5
    currency: str = "USD"
    date: str = ""
    source: str = ""

    @classmethod
    def of(cls, model: str, table: Sequence[Mapping[str, Any]], own: Mapping[str, Any]) -> Self | None:
        """own: what the user sets, before the table. None where the price is unknown.

        An entry of the table holds for the model of its name, and for its dated versions: `gpt-4.1` for `gpt-4.1-2025-04-14`.
        Raises UserError for a price that is no number from 0 on, or for half a price.
        """
        values = {name: own[name] for name in _FIELDS if own.get(name) is not None}
        for name, value in values.items():
            if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value < float("inf"):
                raise UserError(f"provider.price.{name}={value} must be a number from 0 on, per million tokens.")
        entry = next((each for each in table if _same(model, str(each["model"]))), None)
        if entry is None and not {"input", "output"} <= values.keys():
            if values:
                raise UserError("a price has two parts: set provider.price.input and provider.price.output.")
            return None
        origin = {"date": "", "source": "set by provider.price"} if values else {}
        whole = {**(entry or {}), **values, **origin}
        whole.setdefault("cached", whole["input"])
        if "input" in values and "cached" not in values:
            whole["cached"] = values["input"]
        names = (*_FIELDS, "currency", "date", "source")
        return cls(**{name: whole[name] for name in names if name in whole})

    def cost(self, tokens_in: int, tokens_out: int, cached: int = 0, batch: bool = False) -> float:
        """((in − cached) · input + cached · cached price + out · output) / 10⁶, times `batch` for a batch API."""
        total = (tokens_in - cached) * self.input + cached * self.cached + tokens_out * self.output
        return total / MILLION * (self.batch if batch else 1.0)

    def __str__(self) -> str:
        origin = f"{self.source}, {self.date}" if self.date else self.source
        return f"{self.input:g} {self.currency} in, {self.output:g} out per million tokens ({origin})"


def _same(model: str, name: str) -> bool:
    rest = model.removeprefix(name)
    digits = rest.replace("-", "").replace("@", "")
    return rest == "" or (rest != model and digits.isdigit() and len(digits) == 8)  # a date, not a version


def tokens_of(text: str) -> int:
    """An estimate without a tokenizer: a token for 4 characters, or for one East Asian character.

    How far it is off has not been measured; a dry run counts by the answers of the ledger as soon as there are some.
    """
    wide = sum(character >= WIDE for character in text) if not text.isascii() else 0
    return wide + -(-(len(text) - wide) // 4)


def counted(usage: Usage, prompt: int, answer: str, most: int) -> tuple[int, int, int, bool]:
    """Tokens of prompt, cached ones, and of the answer; whether they are estimates.

    prompt: an estimate. A count is impossible if it is negative, if an answer with a text has no tokens, if the answer has more
    tokens than characters and than `most`, or if the prompt has less than a token for 40 characters or ten times the estimate.
    """
    out, size = usage.answer, tokens_of(answer)
    good_out = out is not None and 0 <= out <= max(most, 4 * size) and (out > 0 or not answer)
    good_in = usage.prompt is not None and prompt / 10 <= usage.prompt <= 10 * prompt + 1000
    tokens_in = usage.prompt if good_in and usage.prompt is not None else prompt
    tokens_out = out if good_out and out is not None else min(size, most)
    cached = usage.cached if good_in and 0 <= usage.cached <= tokens_in else 0
    return tokens_in, cached, tokens_out, not (good_in and good_out)
