"""The sequences on which variants of a language model are compared: prompts with their answers, or plain texts, as tokens."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from mangakd.core.errors import UserError
from mangakd.data.chat_tokens import LEFT_OUT, Marked
from mangakd.export.spread import spread

CALIBRATION = 128  # training sequences
MOST = 512  # sequences of a split that are looked at: their first some thousand tokens decide


@dataclass(frozen=True)
class LanguageSplit:
    """sequences: tokens with marks of the targets (1), at most MOST. origin: where they come from, for messages."""

    sequences: Sequence[Marked]
    origin: str

    def cut(self, tokens: int, context: int) -> list[Marked]:
        """Sequences from the whole split with about `tokens` targets together, each in `context`. Raises UserError for none."""
        fitting = [each for each in self.sequences if not each.note & LEFT_OUT and 1 < len(each.ids) <= context]
        fitting = [each for each in fitting if any(each.targets[1:])]
        if not fitting:
            raise UserError(
                f"{self.origin} has no sequence of 2 to {context} tokens with an answer; variants cannot be compared. Give "
                "shorter texts, or a larger export.max_length if it is set."
            )
        mean = sum(sum(each.targets) for each in fitting) / len(fitting)
        return spread(fitting, max(1, round(tokens / mean)))


@dataclass(frozen=True)
class LanguageData:
    """calibration: training sequences. validation: decides. test: what the chosen variant is asked once."""

    calibration: Sequence[Marked]
    validation: LanguageSplit
    test: LanguageSplit | None = None

    def texts(self, tokenizer: Any) -> list[str]:
        """The training sequences as texts, with the names of special tokens in them."""
        return [tokenizer.decode(each.ids, clean_up_tokenization_spaces=False) for each in self.calibration]
