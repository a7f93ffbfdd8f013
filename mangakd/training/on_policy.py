"""On-policy batches: a share of the training batches is written by the student, and its teacher says what it would have written.

A student that learns from given texts alone never sees its own mistakes, which it meets when it writes. Here the targets of some
batches are the student's answers to the prompts. The loss on them is the divergence from the teacher alone (`Task.author`).

Whether a step is on-policy, and each text, follow from seed, step and prompt: all ranks and micro-batches of a step agree, and a
resumed run goes on with the same bits. A step is divided by the target tokens that were written, on all ranks. With accumulation
each micro-batch is divided by its own, and counts by its share of the step's rows: what later micro-batches will hold is unknown.

Source: Agarwal et al. 2024 (arXiv:2306.13649). Deviation: TRL 1.16 divides by the target tokens of the rows that were replaced.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from mangakd.core.errors import UserError
from mangakd.core.outputs import OWN_TEXT, Batch
from mangakd.core.requires import Need
from mangakd.models.encoder import Encoder
from mangakd.models.generation import Sampling, seed_of
from mangakd.tasks.base import Author

ROWS = "rows"  # a unit that no text changes


@dataclass(frozen=True)
class OnPolicy:
    """share: of the optimizer steps, in [0, 1]; distill.lmbda sets it. Others: see `Sampling`.

    Raises UserError for an option outside its range.
    """

    share: float = 0.0
    temperature: float = 1.0
    top_p: float = 1.0
    max_new_tokens: int = 128

    def __post_init__(self) -> None:
        if not isinstance(self.share, int | float) or not 0 <= self.share <= 1:
            raise UserError(
                f"distill.lmbda={self.share} must be in [0, 1]: the share of batches that the student writes."
            )
        try:
            _ = self.sampling
        except UserError as error:
            raise UserError(f"on_policy.{error}") from error

    @property
    def sampling(self) -> Sampling:
        return Sampling(self.temperature, self.top_p, self.max_new_tokens)


@dataclass(frozen=True)
class OwnTexts:
    """Replaces batches by those that the student writes. seed: of the run."""

    options: OnPolicy
    author: Author
    seed: int

    def __call__(self, student: Encoder, batch: Batch, step: int, add: Callable[[Tensor], Tensor]) -> Batch:
        """The batch, or another with the same prompts. add: a tensor → its sum over ranks, each of which calls it."""
        if np.random.default_rng([self.seed, step]).random() >= self.options.share:
            return {**batch, OWN_TEXT: False}
        seeds = [seed_of(self.seed, step, key) for key in batch["key"].tolist()]
        need = student.need
        try:  # without taps, which would keep what they record
            student.require(Need(answer=True))
            new, units = self.author(student, batch, self.options.sampling, seeds)
        finally:
            student.require(need)
        return {**new, OWN_TEXT: True, "scale": _scale(batch["scale"], units, batch["key"].device, add)}


def _scale(
    scale: Mapping[str, float], units: Mapping[str, int], device: torch.device, add: Callable[[Tensor], Tensor]
) -> dict[str, float]:
    """The batch's share of its step in what the new texts count. units: unit of counting → how many are here.

    A rank that took a row only to take part has a scale of 0 (data/sampler.py); its text counts nothing.
    """
    here = [count if scale[ROWS] else 0 for count in units.values()]
    precise = torch.float32 if device.type == "mps" else torch.float64
    *whole, share = add(torch.tensor([*here, scale[ROWS]], dtype=precise, device=device)).tolist()
    new = {name: share * own / every for name, own, every in zip(units, here, whole, strict=True)}
    return {**scale, **new}
