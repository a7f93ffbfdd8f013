"""Names of special tokens in a message, which are text, beside the special tokens that a chat template writes.

A rendering holds both. So a placeholder stands for a name in a message while a template renders it. Afterwards another character
stands for each special token, in the rendering and in a copy of the tokenizer. One call then reads names as text and characters
as special tokens, with every token in its context. All these characters are of plane 16 of Unicode, for private use.
"""

import json
import re
from dataclasses import dataclass
from functools import cached_property

from tokenizers import Tokenizer

_TOKENS, _PLACEHOLDERS = 0x100000, 0x108000


class Mismatch(ValueError):
    """Why a rendering does not show where an answer is. The end of a sentence that starts with a row."""


@dataclass(frozen=True)
class Swap:
    """special: the names of a tokenizer's special tokens, the longest first."""

    special: tuple[str, ...]

    @classmethod
    def of(cls, tokenizer: Tokenizer) -> "Swap":
        added = tokenizer.get_added_tokens_decoder().values()
        return cls(tuple(sorted({token.content for token in added if token.special}, key=len, reverse=True)))

    @cached_property
    def _placeholders(self) -> dict[str, str]:
        return {name: chr(_PLACEHOLDERS + i) for i, name in enumerate(self.special)}

    @cached_property
    def _tokens(self) -> dict[str, str]:
        return {name: chr(_TOKENS + i) for i, name in enumerate(self.special)}

    @cached_property
    def _lengths(self) -> list[int]:
        return sorted({len(name) for name in self.special}, reverse=True)

    @cached_property
    def _names(self) -> re.Pattern[str]:
        return re.compile("|".join(map(re.escape, self.special)) or "(?!)")

    def check(self, text: str) -> None:
        """Raises Mismatch for a text that holds a character of plane 16."""
        if (private := max(text, default="")) >= chr(_TOKENS):
            raise Mismatch(
                f"it holds the character U+{ord(private):X} for private use, which stands for a special token here"
            )

    def hide(self, text: str) -> str:
        """A message with placeholders for names. Raises Mismatch as `check` does."""
        self.check(text)
        return self._names.sub(lambda match: self._placeholders[match[0]], text)

    def show(self, text: str) -> str:
        """A rendering for `tokenizer`: names are those that messages held, characters stand for special tokens."""
        text = self._names.sub(lambda match: self._tokens[match[0]], text)
        return re.sub(
            f"[{chr(_PLACEHOLDERS)}-\U0010ffff]", lambda match: self.special[ord(match[0]) - _PLACEHOLDERS], text
        )

    def name_at_end(self, text: str) -> int:
        """The length of the name with which a text ends; 0 where it ends with none."""
        return next((size for size in self._lengths if text[-size:] in self._tokens), 0)

    def tokenizer(self, tokenizer: Tokenizer) -> Tokenizer:
        """A copy that reads names of special tokens as text, and one character each as the special tokens.

        It has no post-processor, which may trim the blank before a word from the offsets of its token.
        """
        state = json.loads(tokenizer.to_str()) | {"post_processor": None, "truncation": None, "padding": None}
        model, names = state["model"], self._tokens
        if isinstance(model["vocab"], dict):
            model["vocab"] = {names.get(word, word): i for word, i in model["vocab"].items()}
        else:
            model["vocab"] = [[names.get(word, word), score] for word, score in model["vocab"]]
        if "unk_token" in model:
            model["unk_token"] = names.get(model["unk_token"], model["unk_token"])
        for token in state["added_tokens"]:
            token["content"] = names.get(token["content"], token["content"])
        copy = Tokenizer.from_str(json.dumps(state))
        copy.encode_special_tokens = False
        return copy
