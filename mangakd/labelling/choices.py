"""Which of several texts a language model on this machine would answer with: the exact log-probability of each.

log p(choice) = Σ log p(token | prompt, tokens before) + log p(end of the turn | prompt, choice). With the end in it no choice is
the beginning of another one, so that the probabilities of all choices add up to 1 at most. The prompt is read once, and its keys
and values serve all choices. Each request is computed alone, so that no answer depends on the rows beside it.

Shapes: K choices, L tokens of the longest one, T tokens of the prompt, V vocabulary.
"""

import copy
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from mangakd.labelling.provider import Answer
from mangakd.models.generation import Sampling, padded, writing


@dataclass(frozen=True)
class Chooser:
    """tokens: ids of each choice. stops: tokens that end a turn. vocabulary: how many tokens the tokenizer has. most: tokens of a
    batch, prompts included."""

    choices: Sequence[str]
    tokens: Sequence[Sequence[int]]
    stops: Sequence[int]
    vocabulary: int
    most: int

    def answer(self, model: Any, prompt: Sequence[int], sampling: Sampling, seed: int) -> Answer:
        """The likeliest choice, or one that is drawn from p ∝ p(choice)^(1 / temperature), with all log-probabilities."""
        logprobs = self.logprobs(model, prompt)
        place = int(logprobs.argmax())
        if sampling.draws:
            weights = np.exp((logprobs - logprobs.max()) / sampling.temperature)
            place = int(np.random.default_rng(seed).choice(len(weights), p=weights / weights.sum()))
        named = dict(zip(self.choices, logprobs.tolist(), strict=True))
        return Answer(self.choices[place], "ended", len(self.tokens[place]) + 1, logprobs=(named,))

    def logprobs(self, model: Any, prompt: Sequence[int]) -> np.ndarray:
        """(K) in nats."""
        device = next(model.parameters()).device
        with writing(model):
            read = model(input_ids=torch.tensor([[*prompt]], device=device), use_cache=True, logits_to_keep=1)
            first = self._log_probs(read.logits[0, -1])
            longest = max(map(len, self.tokens))
            size = max(1, self.most // (len(prompt) + longest))
            parts = [
                self._part(model, read.past_key_values, len(prompt), self.tokens[start : start + size], first)
                for start in range(0, len(self.tokens), size)
            ]
        return torch.cat(parts).double().cpu().numpy()

    def _part(self, model: Any, cache: Any, before: int, rows: Sequence[Sequence[int]], first: Tensor) -> Tensor:
        """(k) of some choices. first: (V) log-probabilities of the token after the prompt."""
        device, own = first.device, copy.deepcopy(cache)
        own.batch_repeat_interleave(len(rows))
        batch = {name: each.to(device) for name, each in padded(rows, self.stops[0], left=False).items()}
        ids, mask = batch["input_ids"], batch["attention_mask"]
        logits = model(
            input_ids=ids,
            attention_mask=torch.cat([mask.new_ones(len(rows), before), mask], 1),
            position_ids=(before + torch.arange(ids.shape[1], device=device)).expand(ids.shape),
            past_key_values=own,
            use_cache=True,
        ).logits
        log_probs = self._log_probs(logits)  # (k, L, V)
        inner = log_probs[:, :-1].gather(-1, ids[:, 1:, None])[..., 0] * mask[:, 1:]
        last = mask.sum(1) - 1
        ends = log_probs[torch.arange(len(rows), device=device), last][:, list(self.stops)].logsumexp(-1)
        return first[ids[:, 0]] + inner.sum(1) + ends

    def _log_probs(self, logits: Tensor) -> Tensor:
        return logits[..., : self.vocabulary].float().log_softmax(-1)
