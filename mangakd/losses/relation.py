"""Relation distillation: how tokens relate to each other by their queries, keys and values, whatever the head counts.

For each relation X of query, key and value, the heads are concatenated to (B, T, D) and split into A relation heads.

Formula, summed over mapped pairs, relations, relation heads and valid query rows, over valid key columns only:

    R = softmax(X Xᵀ / sqrt(D / A))          KL_b = Σ KL(R_teacher‖R_student) of text b, nats
    average = tokens   every token alike     sum = Σ_b KL_b          count = Σ_b n_b · A · pairs · relations
    average = texts    every text alike      sum = Σ_b KL_b / n_b    count = B · A · pairs · relations

n_b is the number of valid tokens of text b. Student and teacher may differ in hidden size and head count: no projection and no
head reduction is needed. One layer is enough: `top` maps the last to the last. The paper takes an upper layer, not the last,
for large teachers: set layer_map to pairs.

Shapes: taps (B, H, T, d) of query, key and value; mask (B, T); relations (B, A, T, T). B rows, T tokens, H heads, d = D / H,
D hidden size, A relation heads.

Source: Wang et al. 2021 (MiniLMv2, arXiv:2012.15828, section 3.1).

Deviations: by default all tokens count alike, so that long texts count more; `average=texts` is the paper's form. Relation heads
default to the student's head count. The loss is the mean over relations and pairs, as with the paper's equal weights of 1/3.
"""

import math
from collections.abc import Iterable
from typing import ClassVar

import torch
from torch import Tensor

from mangakd.core.errors import UserError, near
from mangakd.core.layer_map import LayerMap, Pairs, resolve
from mangakd.core.outputs import AttentionTap, Batch, Outputs, unpadded
from mangakd.core.requires import Need, Requires
from mangakd.core.schedule import Schedule
from mangakd.core.spec import ModelSpec
from mangakd.losses.aligned import check_same_vocabulary, log_rows, row_kl, token_mask
from mangakd.losses.base import LossCallback, LossOutput

RELATIONS = ("query", "key", "value")


class RelationLoss(LossCallback):
    """KL between the self-relations of queries, keys and values for each valid query row, in nats.

    relations: some of query, key, value. relation_heads: A, which must divide both hidden sizes; null takes the student's
    head count. More relation heads are finer (the paper uses 48 for D = 768). layer_map: see core/layer_map, layers
    1…L. average: tokens | texts.

    Raises UserError in `bind`: no teacher, unknown relations, a layer map or relation_heads that do not fit, tokenizers
    that differ; in `forward`: an eager-fallback tap, or shapes that differ.
    """

    citation: ClassVar[str] = "MiniLMv2: Wang et al. 2021, arXiv:2012.15828"

    def __init__(
        self,
        *,
        weight: Schedule = 1.0,
        relations: Iterable[str] = RELATIONS,
        relation_heads: int | None = None,
        layer_map: LayerMap = "top",
        average: str = "tokens",
    ) -> None:
        super().__init__(weight=weight)
        self.relations = tuple(relations)
        self.relation_heads = relation_heads
        self.layer_map = layer_map
        self.average = average
        self.pairs: Pairs = ()
        self.split = 0

    @property
    def reads_queries(self) -> bool:
        return True

    def bind(self, student: ModelSpec, teacher: ModelSpec | None) -> None:
        teacher = self.teacher_spec(teacher)
        self._check_relations()
        self.check_choice("average", ("tokens", "texts"))
        self.unit = "tokens" if self.average == "tokens" else "rows"
        check_same_vocabulary(self, student, teacher)
        self.pairs = resolve(self.layer_map, student.layers, teacher.layers, lowest=1, key=self.key("layer_map"))
        self.split = self._resolve_heads(student, teacher)
        self.requires = Requires(
            student=Need(attention=frozenset(s for s, _ in self.pairs)),
            teacher=Need(attention=frozenset(t for _, t in self.pairs)),
        )

    def forward(self, student: Outputs, teacher: Outputs | None, batch: Batch) -> LossOutput:
        """Taps (B, H, T, d) of each pair, mask (B, T) → sum over pairs, relations, relation heads and valid rows."""
        assert teacher is not None
        mask = token_mask(student, teacher)
        totals = []
        for s, t in self.pairs:
            for relation in self.relations:
                with torch.no_grad():
                    target = self._log_relation(teacher.attention[t], relation, mask, f"teacher layer {t}")
                learned = self._log_relation(student.attention[s], relation, mask, f"student layer {s}")
                totals.append(row_kl(target, learned, mask))
        each, lengths = torch.stack(totals).sum(0), mask.sum(-1)
        if self.average == "texts":
            each, lengths = each / lengths.clamp(min=1), mask.any(-1)
        return LossOutput(each.sum(), lengths.sum() * (self.split * len(totals)))

    def _log_relation(self, tap: AttentionTap, relation: str, mask: Tensor, where: str) -> Tensor:
        """log softmax(X Xᵀ / sqrt(d)) over valid columns, (B, A, T, T) fp32."""
        heads = getattr(tap, relation)
        if heads is None:
            raise UserError(
                f"losses.{self.name} needs {relation} of {where}, which gave probabilities only (eager fallback). Use "
                f"losses.attention with compare=kl, or drop the loss with ~losses.{self.name}."
            )
        # (B, H, T, d_H) → (B, T, D): the heads side by side as in the layer's own output → (B, A, T, D / A).
        states = unpadded(heads, mask).transpose(1, 2).flatten(2).unflatten(-1, (self.split, -1)).transpose(1, 2)
        return log_rows(states @ states.transpose(-1, -2) / math.sqrt(states.shape[-1]), mask)

    def _check_relations(self) -> None:
        unknown = [name for name in self.relations if name not in RELATIONS]
        if unknown:
            hint = near(str(unknown[0]), RELATIONS)
            raise UserError(f"{self.key('relations')} has unknown {unknown}{hint} Known: {', '.join(RELATIONS)}.")
        if not self.relations or len(set(self.relations)) < len(self.relations):
            raise UserError(
                f"{self.key('relations')} must name at least one relation, each once; found {self.relations}."
            )

    def _resolve_heads(self, student: ModelSpec, teacher: ModelSpec) -> int:
        count = student.heads if self.relation_heads is None else self.relation_heads
        if count >= 1 and student.hidden % count == 0 and teacher.hidden % count == 0:
            return count
        common = math.gcd(student.hidden, teacher.hidden)
        fitting = [n for n in range(1, common + 1) if common % n == 0]
        setting = f"{self.key('relation_heads')}={self.relation_heads}"
        default = f" (null takes the student's {count} heads)" if self.relation_heads is None else ""
        raise UserError(
            f"{setting}{default} must divide both hidden sizes; {student.name} has {student.hidden} and {teacher.name} "
            f"has {teacher.hidden}. Set {self.key('relation_heads')} to one of {fitting}."
        )
