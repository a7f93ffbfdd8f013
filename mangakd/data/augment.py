"""New text from the training texts, without a network: words replaced by their neighbours, dropped, and halves swapped.

A small student learns the teacher's function only where it sees text; a teacher can label any amount of it. TinyBERT
replaces words by what a masked language model or word vectors propose; here the teacher's own token embeddings give the
neighbours, as a fine-tuned encoder has no masked-LM head left. A word without neighbours (several tokens, or a number) is
replaced by one drawn from the corpus: unigram noise, which keeps the frequencies of words (Xie et al. 2017,
arXiv:1703.02573). Nothing that is made equals a training, validation or test text, or one made before.
Source: Jiao et al. 2020 (arXiv:1909.10351, section 4.2). Deviation: neighbours by cosine of input embeddings instead of GloVe.
"""

import json
import os
import random
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from mangakd.core.errors import UserError

NEIGHBOURS = 12
TRIES = 4  # for a text that came out as one that is known


@dataclass(frozen=True)
class Augment:
    """copies of each text (0: none). replace, drop: shares of words. swap: share of texts whose halves change places."""

    copies: int = 0
    replace: float = 0.25
    drop: float = 0.1
    swap: float = 0.2
    seed: int = 0

    def __post_init__(self) -> None:
        if not isinstance(self.copies, int) or self.copies < 0:
            raise UserError(f"augment.copies={self.copies} must be a whole number from 0 on.")
        for name in ("replace", "drop", "swap"):
            share = getattr(self, name)
            if not 0 <= share <= 1:
                raise UserError(f"augment.{name}={share} must be in [0, 1].")

    def made(self, texts: Sequence[str], words: "Neighbours", held_out: Collection[str]) -> list[str]:
        """`copies` variants of each text, fewer where no new one is found. A function of the arguments and the seed."""
        rng = random.Random(self.seed)
        others = {*texts, *held_out}
        corpus = [word for text in texts for word in text.split()]
        new = []
        for _ in range(self.copies):
            for text in texts:
                variant = self._new(text, words, corpus, others, rng)
                if variant is not None:
                    others.add(variant)
                    new.append(variant)
        return new

    def _new(
        self, text: str, words: "Neighbours", corpus: Sequence[str], others: Collection[str], rng: random.Random
    ) -> str | None:
        for _ in range(TRIES):
            variant = self._variant(text.split(), words, corpus, rng)
            if variant not in others:
                return variant
        return None

    def _variant(self, parts: list[str], words: "Neighbours", corpus: Sequence[str], rng: random.Random) -> str:
        rest = [word for word in parts if rng.random() >= self.drop] or parts
        changed = [rng.choice(words.of(word) or corpus) if rng.random() < self.replace else word for word in rest]
        if len(changed) > 3 and rng.random() < self.swap:
            middle = len(changed) // 2
            changed = changed[middle:] + changed[:middle]
        return " ".join(changed)


class Neighbours:
    """Words near a word in an embedding matrix (V, D), by cosine; only tokens that are whole words of letters."""

    def __init__(self, tokenizer: Any, embeddings: Tensor) -> None:
        vocabulary = tokenizer.get_vocab()
        plain = sorted(token for token in vocabulary if token.isalpha() and len(token) > 1)
        self._position = {token: i for i, token in enumerate(plain)}
        self._tokens = plain
        rows = embeddings[[vocabulary[token] for token in plain]].float()
        self._vectors = torch.nn.functional.normalize(rows - rows.mean(0), dim=-1)
        self._found: dict[str, list[str]] = {}

    def of(self, word: str) -> list[str]:
        """The nearest words, nearest first; none for a word that is no token of its own."""
        name = word.lower()
        if name not in self._position:
            return []
        if name not in self._found:
            likeness = self._vectors @ self._vectors[self._position[name]]
            near = likeness.topk(min(NEIGHBOURS + 1, len(self._tokens))).indices.tolist()
            self._found[name] = [self._tokens[i] for i in near if self._tokens[i] != name][:NEIGHBOURS]
        return self._found[name]


def from_cache(file: Path, make: Callable[[], list[str]]) -> list[str]:
    """Texts from a cache file, made once."""
    if not file.is_file():
        file.parent.mkdir(parents=True, exist_ok=True)
        scratch = file.with_suffix(f".{os.getpid()}.tmp")
        scratch.write_text(json.dumps(make()))
        scratch.replace(file)
    return json.loads(file.read_text())
