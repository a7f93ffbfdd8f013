"""Texts that a causal language model writes: in batches, with a cache of keys and values, through transformers' `generate`.

A row's text depends on its prompt, its seed and the options alone, in fp32: not on the rows beside it, their order or the number
of devices. Prompts are padded on the left, and positions count from each prompt's first token. A drawn token is the one at which
the row's own random number meets the cumulative distribution, so that rows share no random generator. Of the model's
generation_config only the tokens that end a text are read: its temperature or repetition penalty would make another distribution.

Shapes: B rows of a batch, N new tokens, V vocabulary.
"""

import contextlib
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Self

import numpy as np
import torch
from torch import Tensor
from transformers import (
    GenerationConfig,
    LogitsProcessor,
    LogitsProcessorList,
    TemperatureLogitsWarper,
    TopPLogitsWarper,
)

from mangakd.core.errors import UserError
from mangakd.models.sampling import GREEDY, Sampling, seed_of

__all__ = ["GREEDY", "Sampling", "Writer", "Written", "seed_of"]
TOKENS = 8192  # of a batch with what is written


@dataclass(frozen=True)
class Written:
    """ids: of the new tokens, with the one that ends the text. ended: whether there is one; else the text was cut."""

    ids: list[int]
    ended: bool


@dataclass(frozen=True)
class Writer:
    """Writes with the tokens of one tokenizer. stops: those that end a text. pad: any. vocabulary: how many there are."""

    stops: tuple[int, ...]
    pad: int
    vocabulary: int

    @classmethod
    def of(cls, model: Any, tokenizer: Any, stops: Iterable[int] = ()) -> Self:
        """stops: more of them than tokenizer, config and generation_config name, such as the end of a turn."""
        named = [tokenizer.eos_token_id, model.config.eos_token_id, model.generation_config.eos_token_id]
        each = [token for entry in named for token in (entry if isinstance(entry, list | tuple) else [entry])]
        known = sorted({token for token in (*each, *stops) if token is not None})
        return cls(tuple(known), tokenizer.pad_token_id, len(tokenizer))

    def write(
        self, model: Any, prompts: Sequence[Sequence[int]], sampling: Sampling = GREEDY, seeds: Sequence[int] | None = None,
        tokens: int = TOKENS, advance: Callable[[int], object] = lambda rows: None, longest: int | None = None,
    ) -> list[Written]:  # fmt: skip
        """What `model` writes after each prompt, a list of token ids.

        seeds: of each row, from 0 on; only read where tokens are drawn. tokens: of a batch at most, padding and new tokens
        included; a row that has more is a batch of its own. advance: called with the number of rows that were done. longest: of a
        prompt and its text together, in tokens; None for the model's last position.
        Modes, options and gradients of the model are afterwards as before. Raises UserError for a prompt that is empty, or
        that leaves no position of the model free.
        """
        most, positions = self._rooms(model, prompts, sampling.max_new_tokens, longest or sys.maxsize)
        if sampling.draws and (seeds is None or len(seeds) != len(prompts)):
            raise ValueError(f"drawing needs a seed for each of {len(prompts)} prompts")
        texts: list[Written] = [Written([], False)] * len(prompts)
        with writing(model):
            for rows in in_batches([len(prompt) for prompt in prompts], most, tokens, positions):
                drawn = [(seeds or [])[i] for i in rows] if sampling.draws else []
                new = self._batch(model, [prompts[i] for i in rows], sampling, drawn, max(most[i] for i in rows))
                for i, row in zip(rows, new, strict=True):
                    texts[i] = self._until_stop(row[: most[i]])
                advance(len(rows))
        return texts

    def _rooms(self, model: Any, prompts: Sequence[Sequence[int]], new: int, longest: int) -> tuple[list[int], int]:
        """How many tokens may follow each prompt, and how many positions a row has."""
        positions = positions_of(model)
        return [_room(len(prompt), new, min(longest, positions)) for prompt in prompts], positions

    def _batch(
        self, model: Any, prompts: list[Sequence[int]], sampling: Sampling, seeds: list[int], most: int
    ) -> list[list[int]]:
        """The tokens after each prompt, `most` or fewer; those after a stop mean nothing."""
        inputs = padded(prompts, self.pad, left=True)
        width = inputs["input_ids"].shape[1]
        all_ids = self._generate(model, inputs, self._choice(sampling, seeds, width, most), max_new_tokens=most)
        new: list[list[int]] = all_ids[:, width:].tolist()
        return new

    def _generate(
        self, model: Any, inputs: Mapping[str, Any], processors: LogitsProcessorList, **options: Any
    ) -> Tensor:
        """What `generate` answers with these options, and no other ones of the model."""
        device = next(model.parameters()).device
        stops = {"eos_token_id": [*self.stops] or None, "pad_token_id": self.pad}
        config = GenerationConfig(do_sample=False, use_cache=True, **stops, **options)
        with _settings(model, config):
            own = {name: each.to(device) if isinstance(each, Tensor) else each for name, each in inputs.items()}
            ids: Tensor = model.generate(**own, logits_processor=processors)
        return ids

    def _until_stop(self, ids: list[int]) -> Written:
        end = next((place for place, token in enumerate(ids) if token in self.stops), None)
        return Written(ids if end is None else ids[: end + 1], end is not None)

    def _choice(self, sampling: Sampling, seeds: list[int], width: int, most: int) -> LogitsProcessorList:
        """How the next token is chosen from the logits: `generate` then takes the largest score."""
        processors: list[Any] = self._rules(sampling.min_new_tokens, width)
        if sampling.draws:
            processors.append(TemperatureLogitsWarper(float(sampling.temperature)))
            if sampling.top_p < 1:
                processors.append(TopPLogitsWarper(float(sampling.top_p)))
            numbers = np.stack([np.random.default_rng(seed).random(most) for seed in seeds])
            processors.append(_Draw(torch.from_numpy(numbers), width))
        return LogitsProcessorList(processors)

    def _rules(self, least: int, width: int) -> list[Any]:
        """What no text may have: unknown tokens, and an end before `least` tokens after the first `width`."""
        return [Known(self.vocabulary), *([_AtLeast(self.stops, width + least)] if least else [])]


def positions_of(model: Any) -> int:
    """The positions that a config names; those of other models are computed."""
    return getattr(model.config, "max_position_embeddings", None) or sys.maxsize


def padded(rows: Sequence[Sequence[int]], pad: int, left: bool) -> dict[str, Tensor]:
    """input_ids and attention_mask (B, T) of rows of different length. left: where padding is."""
    width = max(map(len, rows))
    ids, mask = torch.full((len(rows), width), pad), torch.zeros(len(rows), width, dtype=torch.long)
    for i, row in enumerate(rows):
        place = slice(width - len(row), None) if left else slice(len(row))
        ids[i, place], mask[i, place] = torch.as_tensor(row), 1
    return {"input_ids": ids, "attention_mask": mask}


class Known(LogitsProcessor):
    """Rules out the rows of a padded vocabulary: no token of the tokenizer belongs to them."""

    def __init__(self, vocabulary: int) -> None:
        self._vocabulary = vocabulary

    def __call__(self, input_ids: Tensor, scores: Tensor) -> Tensor:
        scores[:, self._vocabulary :] = float("-inf")
        return scores


class _AtLeast(LogitsProcessor):
    """Rules out the tokens that end a text until it has `width` tokens, those before the new ones included."""

    def __init__(self, stops: Sequence[int], width: int) -> None:
        self._stops, self._width = [*stops], width

    def __call__(self, input_ids: Tensor, scores: Tensor) -> Tensor:
        if input_ids.shape[1] < self._width:
            scores[:, self._stops] = float("-inf")
        return scores


class _Draw(LogitsProcessor):
    """Leaves the one token at which the row's number meets the cumulative distribution. numbers: (B, N) in [0, 1), float64."""

    def __init__(self, numbers: Tensor, width: int) -> None:
        self._numbers, self._width = numbers, width

    def __call__(self, input_ids: Tensor, scores: Tensor) -> Tensor:
        place = torch.device("cpu") if scores.device.type == "mps" else scores.device  # MPS has no float64
        cumulative = torch.softmax(scores.to(place, torch.float64), -1).cumsum(-1)
        number = self._numbers[:, input_ids.shape[1] - self._width, None].to(place)
        # right: a token of probability 0 is never the first whose sum is above the number. NaN logits have no such token: the
        # last one is taken, and the loss on it will say what is wrong.
        chosen = torch.searchsorted(cumulative, number * cumulative[:, -1:], right=True).clamp_(max=scores.shape[1] - 1)
        return torch.full_like(scores, float("-inf")).scatter_(1, chosen.to(scores.device), 0.0)


@contextlib.contextmanager
def writing(model: Any) -> Iterator[None]:
    """Within it the model is in eval mode, without a graph, and not compiled: each length of the cache would be compiled anew."""
    modes = [(module, module.training, module._compiled_call_impl) for module in model.modules()]
    model.eval()
    for module, _, compiled in modes:
        if compiled is not None:
            module._compiled_call_impl = None
    try:
        with torch.no_grad():
            yield
    finally:
        for module, training, compiled in modes:
            module.training, module._compiled_call_impl = training, compiled


@contextlib.contextmanager
def _settings(model: Any, options: GenerationConfig) -> Iterator[None]:
    """`generate` fills what is left out of the options it is given with those of the model."""
    before, model.generation_config = model.generation_config, options
    try:
        yield
    finally:
        model.generation_config = before


def _room(prompt: int, new: int, limit: int) -> int:
    """How many tokens may follow a prompt."""
    if prompt and prompt < limit:
        return min(new, limit - prompt)
    what = f"a prompt of {prompt} tokens leaves none of {limit} positions free" if prompt else "a prompt is empty"
    raise UserError(f"{what}, so that nothing can be written after it. Shorten the prompt, or leave the row out.")


def in_batches(lengths: Sequence[int], most: Sequence[int], tokens: int, positions: int) -> Iterator[list[int]]:
    """Positions of rows that are written together, the longest first, so that memory that does not suffice shows at once.

    A text that has reached its end waits for the others at further positions, which the model must have.
    """
    batch: list[int] = []
    new = 0
    for i in sorted(range(len(lengths)), key=lambda i: -lengths[i]):
        longest = lengths[batch[0] if batch else i] + max(new, most[i])
        if batch and ((len(batch) + 1) * longest > tokens or longest > positions):
            yield batch
            batch, new = [], 0
        batch.append(i)
        new = max(new, most[i])
    if batch:
        yield batch
