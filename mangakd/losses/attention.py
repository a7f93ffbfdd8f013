"""Attention transfer: the student's mapped layers learn where the teacher's heads look.

Formula, with S = scale · Q Kᵀ and A = softmax(S), summed over mapped pairs, heads and valid cells (a query row × a key column):

    scores   (S_student − S_teacher)²            TinyBERT: scores converge faster than maps     count = Σ_b n_b² · H · pairs
    mse      (A_student − A_teacher)²                                                           count = Σ_b n_b² · H · pairs
    kl       KL(A_teacher‖A_student), nats       MiniLM's form, for each valid query row        count = Σ_b n_b · H · pairs

n_b is the number of valid tokens of text b. Maps are rebuilt from the tapped query and key. So no layer runs eager attention, and
the maps are those before dropout (Hugging Face returns maps after dropout). Padded rows and columns are left out, so padding
never changes the loss. Probabilities of the eager fallback are cut at 1e-30 (−69 nats), and so are keys outside the window of a
tapped layer.

Shapes: taps (B, H, T, d) of query and key, with H_s heads in the student and H_t in the teacher; mask (B, T); maps (B, H, T, T).
B rows, T tokens, H heads, d = D / H.

Source: Jiao et al. 2020 (TinyBERT, arXiv:1909.10351, eq. 7); maps: Zagoruyko and Komodakis 2017 (arXiv:1612.03928).

Deviations: TinyBERT adds up, over mapped layers, the mean over heads of the MSE over a text's l × l scores. Here

    pairs      are averaged: with M mapped layers, a weight of 1 here is a weight of 1 / M there
    texts      weigh n_b²: all cells of a step count alike, where TinyBERT counts all texts alike
    padding    is left out; the published script averages over padded cells, too, and sets every score ≤ −100 to 0, valid ones too
    heads      may differ (mean, group); TinyBERT's models have equal counts

MiniLM's KL divides by the length of each text; here every query row counts alike. `mse` compares attention maps, where Zagoruyko
and Komodakis compare sums of squared activations.
"""

import math
from typing import ClassVar

import torch
from torch import Tensor

from mangakd.core.errors import UserError
from mangakd.core.layer_map import LayerMap, Pairs, resolve
from mangakd.core.outputs import AttentionTap, Batch, Outputs, cells
from mangakd.core.requires import Need, Requires
from mangakd.core.schedule import Schedule
from mangakd.core.spec import ModelSpec
from mangakd.losses.aligned import check_same_vocabulary, row_kl, token_mask
from mangakd.losses.base import LossCallback, LossOutput


class AttentionLoss(LossCallback):
    """Distance between mapped attention layers (scores: squared score units; mse: squared probability; kl: nats).

    layer_map: see core/layer_map, layers 1…L. compare: scores | kl | mse. heads: null (counts must be equal) | mean
    (both sides averaged over heads, H = 1) | group (teacher heads averaged in H_s consecutive groups, H = H_s). Scores
    are averaged for compare=scores, probabilities for kl and mse.

    Raises UserError in `bind`: no teacher, unknown options, a layer map that does not fit, tokenizers that differ, head
    counts that do not fit; in `forward`: compare=scores on an eager-fallback tap, or shapes that differ.
    """

    citation: ClassVar[str] = (
        "TinyBERT: Jiao et al. 2020, arXiv:1909.10351; maps: Zagoruyko and Komodakis 2017, arXiv:1612.03928"
    )

    def __init__(
        self,
        *,
        weight: Schedule = 1.0,
        layer_map: LayerMap = "uniform",
        compare: str = "scores",
        heads: str | None = None,
    ) -> None:
        super().__init__(weight=weight)
        self.layer_map = layer_map
        self.compare = compare
        self.heads = heads
        self.pairs: Pairs = ()
        self.compared_heads = 0

    @property
    def reads_queries(self) -> bool:
        return self.compare == "scores"

    def bind(self, student: ModelSpec, teacher: ModelSpec | None) -> None:
        teacher = self.teacher_spec(teacher)
        self.check_choice("compare", ("scores", "kl", "mse"))
        self.check_choice("heads", (None, "mean", "group"))
        check_same_vocabulary(self, student, teacher)
        self.pairs = resolve(self.layer_map, student.layers, teacher.layers, lowest=1, key=self.key("layer_map"))
        self._check_heads(student, teacher)
        self.compared_heads = 1 if self.heads == "mean" else student.heads
        self.unit = "tokens" if self.compare == "kl" else "cells"
        self.requires = Requires(
            student=Need(attention=frozenset(s for s, _ in self.pairs)),
            teacher=Need(attention=frozenset(t for _, t in self.pairs)),
        )

    def forward(self, student: Outputs, teacher: Outputs | None, batch: Batch) -> LossOutput:
        """Taps (B, H, T, d) of each pair, mask (B, T) → sum over pairs, heads, valid rows (and valid columns)."""
        assert teacher is not None
        mask = token_mask(student, teacher)
        totals = []
        for s, t in self.pairs:
            with torch.no_grad():
                target = self._view(teacher.attention[t], mask, f"teacher layer {t}")
            totals.append(self._distance(self._view(student.attention[s], mask, f"student layer {s}"), target, mask))
        lengths = mask.sum(-1)
        compared = lengths.sum() if self.compare == "kl" else lengths.square().sum()
        return LossOutput(torch.stack(totals).sum(), compared * (self.compared_heads * len(self.pairs)))

    def _view(self, tap: AttentionTap, mask: Tensor, where: str) -> Tensor:
        """What is compared, (B, H, T, T) fp32 with reduced heads: scores, or log maps (padded cells 0)."""
        if self.compare == "scores":
            if tap.query is None:
                raise UserError(
                    f"{self.key('compare')}=scores needs query and key, but {where} gave probabilities only (eager "
                    f"fallback). Set {self.key('compare')}=kl or mse."
                )
            return _group(tap.scores(mask), self.compared_heads).mean(2)
        # Padded columns from -inf to a finite value before logsumexp, whose gradient is NaN when all terms are -inf.
        grouped = _group(tap.log_maps(mask).masked_fill(~cells(mask), 0.0), self.compared_heads)
        return grouped.logsumexp(2) - math.log(grouped.shape[2])

    def _distance(self, student: Tensor, teacher: Tensor, mask: Tensor) -> Tensor:
        """(B, H, T, T) twice → a scalar sum over what is valid."""
        if self.compare == "kl":
            return row_kl(teacher, student, mask).sum()
        difference = student - teacher if self.compare == "scores" else student.exp() - teacher.exp()
        return difference.masked_fill(~cells(mask), 0.0).square().sum()

    def _check_heads(self, student: ModelSpec, teacher: ModelSpec) -> None:
        sizes = f"{student.name} has {student.heads} heads and {teacher.name} has {teacher.heads}"
        if self.heads is None and student.heads != teacher.heads:
            raise UserError(
                f"losses.{self.name} compares head by head, but {sizes}. Set {self.key('heads')}=mean, or group when "
                f"the teacher's count is a multiple; losses.relation has no such limit."
            )
        if self.heads == "group" and teacher.heads % student.heads:
            raise UserError(
                f"{self.key('heads')}=group needs the teacher's head count to be a multiple of the student's; {sizes}. "
                f"Set {self.key('heads')}=mean."
            )


def _group(maps: Tensor, heads: int) -> Tensor:
    """(B, H, T, T) → (B, heads, H / heads, T, T), consecutive heads together."""
    return maps.unflatten(1, (heads, -1))
