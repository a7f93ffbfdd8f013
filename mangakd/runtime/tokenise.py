"""Tokenises texts as Hugging Face's fast tokenizer does, without transformers.

Both run the same tokenizer.json through the same Rust code. transformers adds padding, and truncation to max_length that keeps
the special tokens; so does this module.

The name of a special token in a text, such as `</s>`, is plain text: runtime, training and export call `read_as_text`.
"""

import re
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from tokenizers import Encoding, Regex, Tokenizer
from tokenizers.pre_tokenizers import PreTokenizer, Split
from tokenizers.pre_tokenizers import Sequence as Steps

from mangakd.core.errors import UserError
from mangakd.runtime.manifest import Manifest
from mangakd.runtime.turns import Turns

Text = str | tuple[str, ...]
"""What a model is asked about: a text, a query with a document, or the turns of a conversation, the oldest first."""


class Tokeniser:
    """texts → encodings → padded int64 arrays (B, T). Several threads may call it at a time.

    pairs: texts are pairs, of which the second alone is cut. Raises UserError for a file that holds no tokenizer, and for a
    length that has no room for a text.
    """

    def __init__(
        self,
        file: Path,
        max_length: int,
        pad_id: int = 0,
        pad_type_id: int = 0,
        truncation_side: str = "right",
        pairs: bool = False,
    ):
        try:
            self._tokenizer = Tokenizer.from_file(str(file))
        except Exception as error:  # tokenizers raises plain Exceptions
            raise UserError(
                f"{file} holds no tokenizer that can be read ({error}). Export the student again."
            ) from error
        read_as_text(self._tokenizer)
        special = self._tokenizer.num_special_tokens_to_add(is_pair=pairs)
        self._max_length, self._most = max_length, max_length - special
        if self._most < 1 + pairs:
            raise UserError(
                f"max_length {max_length} of {file} is too small for a text: special tokens alone take {special}."
            )
        self._tokenizer.no_padding()
        strategy = "only_second" if pairs else "longest_first"
        self._tokenizer.enable_truncation(max_length, strategy=strategy, direction=truncation_side)
        self._fill = {"input_ids": pad_id, "attention_mask": 0, "token_type_ids": pad_type_id}

    @classmethod
    def of(cls, manifest: Manifest) -> "Tokeniser":
        return cls(
            manifest.tokenizer, manifest.max_length, manifest.pad_id, manifest.pad_type_id, manifest.truncation_side,
            manifest.pairs,
        )  # fmt: skip

    def __call__(self, texts: Sequence[Text]) -> list[Encoding]:
        """Raises UserError for a pair whose query leaves no room for a document."""
        clean = [whole(text) if isinstance(text, str) else tuple(map(whole, text)) for text in texts]
        try:
            return self._tokenizer.encode_batch_fast(clean)
        except Exception as error:  # tokenizers raises plain Exceptions
            if "too short to respect the provided max_length" not in str(error):
                raise
            raise UserError(self._too_long) from error

    def check_query(self, query: str) -> None:
        """Raises UserError for a query that leaves no room for one token of a document."""
        if len(self([(query, "")])[0]) >= self._max_length:
            raise UserError(self._too_long)

    def texts(self, rows: np.ndarray) -> list[str]:
        """(N, T) token ids, padded with negative numbers, as texts without special tokens and without blanks around them."""
        texts = self._tokenizer.decode_batch([row[row >= 0].tolist() for row in rows], skip_special_tokens=True)
        return [text.strip() for text in texts]

    @property
    def _too_long(self) -> str:
        return (
            f"the query has {self._most} tokens or more: with a document it is over the {self._max_length} tokens of this "
            "student, and a query is never cut. Shorten it."
        )

    def pad(self, encodings: Sequence[Encoding], inputs: Sequence[str]) -> dict[str, np.ndarray]:
        """Each of `inputs` (input_ids, attention_mask, token_type_ids) as (B, T) int64; T is the length of the longest text."""
        width = max(1, *(len(encoding) for encoding in encodings))
        arrays = {name: np.full((len(encodings), width), self._fill[name], dtype=np.int64) for name in inputs}
        for row, encoding in enumerate(encodings):
            values = {"input_ids": encoding.ids, "attention_mask": encoding.attention_mask}
            values["token_type_ids"] = encoding.type_ids
            for name, array in arrays.items():
                array[row, : len(encoding)] = values[name]
            if not len(encoding) and "attention_mask" in arrays:
                arrays["attention_mask"][row, 0] = 1  # a text without tokens: one visible padding token
        return arrays


class TurnsTokeniser(Tokeniser):
    """Texts, and turns of conversations, of which the oldest are left out where all of them do not fit."""

    def __init__(self, manifest: Manifest, turns: Turns) -> None:
        super().__init__(
            manifest.tokenizer, manifest.max_length, manifest.pad_id, manifest.pad_type_id, manifest.truncation_side
        )
        self._turns = turns

    def __call__(self, texts: Sequence[Text]) -> list[Encoding]:
        return super().__call__(
            [text if isinstance(text, str) else self._turns.newest(text, self._fits) for text in texts]
        )

    def _fits(self, text: str) -> bool:
        return not self._tokenizer.encode(whole(text)).overflowing


def characters(text: Text) -> int:
    """Of a text, of both texts of a pair, or of all turns."""
    return len(text) if isinstance(text, str) else sum(map(len, text))


def whole(text: str) -> str:
    """Replace lone surrogates, which cannot be encoded, by U+FFFD. JSON may hold lone surrogates: "\\ud83d"."""
    if text.isascii():
        return text
    return text.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "replace")


def read_as_text(tokenizer: Tokenizer) -> None:
    """Make the tokenizer read the names of special tokens in a text as plain text, in place. A second call changes nothing.

    `encode_special_tokens` (transformers: `split_special_tokens`) is enough if the model cannot build such a token from
    characters. A Unigram model can, and so can a model that looks up whole words. For these models a pre-tokenizer splits such
    names in two.
    """
    tokenizer.encode_special_tokens = True
    special = {
        t.content: i for i, t in tokenizer.get_added_tokens_decoder().items() if t.special and len(t.content) > 1
    }
    if any(_reads_as_token(tokenizer, content, i) for content, i in special.items()):
        words = "|".join(f"{re.escape(content[0])}(?={re.escape(content[1:])})" for content in special)
        cut = Split(Regex(words), "merged_with_previous")
        before: PreTokenizer | None = tokenizer.pre_tokenizer
        tokenizer.pre_tokenizer = cut if before is None else Steps([before, cut])


def _reads_as_token(tokenizer: Tokenizer, content: str, token: int) -> bool:
    """Whether the name of a special token in a text becomes that token, but does not if it is split in two."""

    def reads(*texts: str) -> bool:
        return any(token in tokenizer.encode(text, add_special_tokens=False).ids for text in texts)

    return reads(content, f"a{content}", f"{content}a", f"a {content} a") and not reads(content[0], content[1:])
