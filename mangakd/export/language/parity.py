"""What a variant must share with the merged folder, or it is not kept: token ids, prompts of conversations, greedy texts.

    ids      equal for all of `texts.texts`, with special tokens and without
    prompts  equal for all of `texts.CONVERSATIONS`, of a student with a chat template
    greedy   equal, or different from a token on at which the merged folder is undecided

Rounding turns a near-tie: the merged folder itself gives both tokens almost the same probability. So a greedy text of a variant
may leave the merged folder's text only at a token where

    log p(own token) − log p(variant's token) ≤ within        under the merged folder, after the same prefix

What follows the first such token is not compared: the prefixes differ. A wrong permutation, norm or head moves
log-probabilities by far more than rounding does, at the first tokens already.
"""

import contextlib
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import jinja2
import numpy as np

from mangakd.core.errors import UserError
from mangakd.export.language.engine import Engine, Messages
from mangakd.export.language.student import Student
from mangakd.export.language.texts import CONVERSATIONS, PROMPTS, texts

NEW = 24  # tokens after a prompt
SHOWN = 60  # characters of a text in a message


@dataclass
class Reference:
    """The merged folder's answers, each computed once for all variants."""

    student: Student
    engine: Engine
    texts: list[str] = field(init=False)

    def __post_init__(self) -> None:
        self.texts = texts([str(token) for token in self.student.tokenizer.all_special_tokens])

    @cached_property
    def ids(self) -> dict[bool, list[list[int]]]:
        return {special: self.engine.ids(self.texts, special) for special in (True, False)}

    @cached_property
    def prompts(self) -> list[list[int]]:
        """Without empty ones."""
        return [ids for ids in self.engine.ids(PROMPTS, True) if ids]

    @cached_property
    def greedy(self) -> list[list[int]]:
        return [self.engine.greedy(ids, NEW) for ids in self.prompts]

    @cached_property
    def conversations(self) -> list[tuple[Messages, list[int]]]:
        """Those that the template does not refuse, with the ids of their prompts."""
        rendered = []
        for messages in CONVERSATIONS if self.student.chat else ():
            with contextlib.suppress(jinja2.TemplateError):  # such as a template that knows no system prompt
                rendered.append((messages, self.engine.chat(messages)))
        return rendered


def check(name: str, engine: Engine, reference: Reference, within: float) -> dict[str, Any]:
    """Compare a variant with the merged folder; returns what was compared, for the manifest. within: nats of a near-tie.

    Raises UserError for the first difference, with both sides.
    """
    for special, expected in reference.ids.items():
        check_ids(name, reference.texts, engine.ids(reference.texts, special), expected, special)
    for messages, prompt in reference.conversations:
        check_prompt(name, messages, engine.chat(messages), prompt)
    gaps = [
        gap_of(reference.engine, prompt, engine.greedy(prompt, NEW), own)
        for prompt, own in zip(reference.prompts, reference.greedy, strict=True)
    ]
    largest = max(gaps, default=0.0)
    if not largest <= within:
        i = int(np.argmax(gaps))
        raise UserError(
            f"{name} is not kept: after {PROMPTS[i]!r} it writes another token than the merged folder, which is surer of its own "
            f"by {largest:.2f} nats; rounding explains {within:g} at most. The file's weights are not those of the student."
        )
    return {
        "texts": len(reference.texts), "conversations": len(reference.conversations), "prompts": len(gaps),
        "equal": sum(gap == 0 for gap in gaps), "largest_gap": _finite(largest), "within": _finite(within),
    }  # fmt: skip


def check_ids(
    name: str, texts: Sequence[str], ids: Sequence[Sequence[int]], expected: Sequence[Sequence[int]], special: bool
) -> None:
    """Raises UserError for texts whose token ids are others."""
    others = [i for i, (own, right) in enumerate(zip(ids, expected, strict=True)) if list(own) != list(right)]
    if others:
        i, how = others[0], "with special tokens" if special else "without special tokens"
        raise UserError(
            f"{name} is not kept: its tokenizer gives other ids for {len(others)} of {len(texts)} texts ({how}), such as "
            f"{_short(texts[i])}: {_few(ids[i])}; the student's tokenizer gives {_few(expected[i])}."
        )


def check_prompt(name: str, messages: Messages, prompt: Sequence[int], expected: Sequence[int]) -> None:
    """Raises UserError for another prompt of a conversation."""
    if list(prompt) != list(expected):
        raise UserError(
            f"{name} is not kept: it makes the tokens {_few(prompt)} of the conversation {_short(messages[-1][1])}, and the "
            f"student's chat template makes {_few(expected)}. The template is missing there, or that engine reads it otherwise."
        )


def gap_of(reference: Engine, prompt: Sequence[int], own: Sequence[int], expected: Sequence[int]) -> float:
    """0 for equal texts; else by how many nats the reference prefers its own token at the first place where they differ."""
    if list(own) == list(expected):
        return 0.0
    place = next((i for i, (a, b) in enumerate(zip(own, expected, strict=False)) if a != b), None)
    if place is None:  # one of them takes a token for the end of a text that the other one does not
        return np.inf
    prefix = [*prompt, *expected[:place]]
    preferred = reference.score([*prefix, expected[place]], len(prefix), 1).given[0]
    return float(preferred - reference.score([*prefix, own[place]], len(prefix), 1).given[0])


def _finite(value: float) -> float | None:
    """None for infinity, which JSON does not have."""
    return value if np.isfinite(value) else None


def _short(text: str) -> str:
    return repr(text if len(text) <= SHOWN else f"{text[:SHOWN]}…")


def _few(ids: Sequence[int]) -> str:
    return f"[{', '.join(map(str, ids[:8]))}{', …' if len(ids) > 8 else ''}]"
