"""Greedy decoding without torch: the encoder runs once, the decoder once a token, with a cache of keys and values.

All texts of a batch have written equally many tokens at each step, so the cache holds no padding: padding exists only in the
source, where the mask hides it. Hence a text depends on its own source alone, up to the rounding of a batch's kernels.

B texts, N new tokens, V vocabulary.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from mangakd.runtime.decoding import BLANK, Decoding

Arrays = dict[str, np.ndarray]
Ports = Callable[[Arrays], list[np.ndarray]]
"""Named inputs of a model file → its outputs, in the order in which they were asked for."""


@dataclass(frozen=True)
class Writer:
    """Arrays of the source → token ids (B, max_new_tokens) int64, BLANK after the token that ends a text.

    encoder → `decoding.crossed`. decoder → `decoding.outputs`.
    """

    encoder: Ports
    decoder: Ports
    decoding: Decoding

    def __call__(self, arrays: Arrays) -> np.ndarray:
        """Raises FloatingPointError for logits that are not finite: their texts would mean nothing."""
        rows, step = len(arrays["input_ids"]), self._start(arrays)
        ids = np.full((rows, self.decoding.max_new_tokens), BLANK, dtype=np.int64)
        writes, token = np.ones(rows, dtype=bool), self._first(rows)
        for n in range(ids.shape[1]):
            logits = step(token)[:, : self.decoding.vocabulary]
            if not np.isfinite(logits.max()):
                raise FloatingPointError("the model gave logits that are not finite")
            token = logits.argmax(-1)[:, None]
            ids[writes, n] = token[writes, 0]
            writes &= ~np.isin(token[:, 0], self.decoding.stops)
            if not writes.any():
                break
        return ids

    def logits(self, arrays: Arrays, ids: np.ndarray) -> np.ndarray:
        """(B, N, V): the logits of each of `ids` (B, N) after those before it. Those of BLANK ids mean nothing."""
        step, first = self._start(arrays), self._first(len(ids))
        before = np.concatenate([first, np.where(ids == BLANK, self.decoding.start, ids)[:, :-1]], 1)
        return np.stack([step(before[:, [n]]) for n in range(ids.shape[1])], 1)

    def first_logits(self, arrays: Arrays) -> np.ndarray:
        """(B, V), of the first token."""
        return self._start(arrays)(self._first(len(arrays["input_ids"])))

    def _first(self, rows: int) -> np.ndarray:
        return np.full((rows, 1), self.decoding.start, dtype=np.int64)

    def _start(self, arrays: Arrays) -> Callable[[np.ndarray], np.ndarray]:
        """Read the source. Returns the step from the tokens written last (B, 1) to the logits of the next ones (B, V)."""
        about, mask = self.decoding, arrays["attention_mask"]
        fixed = {"attention_mask": mask, **dict(zip(about.crossed, self.encoder(arrays), strict=True))}
        empty = np.zeros((len(mask), about.heads, 0, about.size), dtype=np.float32)
        past = [empty] * len(about.past)

        def step(token: np.ndarray) -> np.ndarray:
            nonlocal past
            logits, *past = self.decoder({"input_ids": token, **fixed, **dict(zip(about.past, past, strict=True))})
            return logits

        return step
