"""Helpers of the token-aligned losses (hidden, attention, relation): vocabulary check, masks, row divergence.

Token-aligned means: position i of the student is compared with position i of the teacher. That is meaningful only when both
models read the same tokens. Masked values are replaced before the divergence, never multiplied by zero afterwards: 0 · inf and
0 · NaN would poison the sum and the gradient.

Shapes: B rows, T tokens, H heads.
"""

import torch
from torch import Tensor

from mangakd.core.errors import UserError
from mangakd.core.outputs import Outputs, cells, key_columns
from mangakd.core.spec import ModelSpec
from mangakd.losses.base import LossCallback


def check_same_vocabulary(loss: LossCallback, student: ModelSpec, teacher: ModelSpec, cure: str = "") -> None:
    """Raises UserError when the vocabularies are known and differ; the identity is a digest of the content.

    cure: what to do if the student shall keep its tokenizer; by default, leave the loss out.
    """
    if student.vocabulary and teacher.vocabulary and student.vocabulary != teacher.vocabulary:
        raise UserError(
            f"losses.{loss.name} compares token by token, but the tokenizers differ: {student.name} has vocabulary "
            f"{student.vocabulary}, {teacher.name} has {teacher.vocabulary}. Use a student with the teacher's tokenizer, or "
            f"{cure or f'drop the loss with ~losses.{loss.name} (losses.output needs no common tokenizer)'}."
        )


def token_mask(student: Outputs, teacher: Outputs) -> Tensor:
    """Valid tokens, (B, T) bool. Raises UserError when both models did not read the same B and T."""
    if student.mask.shape != teacher.mask.shape:
        raise UserError(
            f"token-aligned losses need equal token positions; the student read {tuple(student.mask.shape)} (B, T) and "
            f"the teacher {tuple(teacher.mask.shape)}. Give both the same tokenizer, data.max_length and padding."
        )
    return student.mask.bool()


def log_rows(scores: Tensor, mask: Tensor) -> Tensor:
    """log softmax of scores (B, H, T, T) over valid key columns; 0 on padded ones, so that nothing is infinite."""
    padded = ~key_columns(mask)[:, None, None, :]
    return torch.log_softmax(scores.masked_fill(padded, float("-inf")), dim=-1).masked_fill(padded, 0.0)


def row_kl(log_p: Tensor, log_q: Tensor, mask: Tensor) -> Tensor:
    """Σ KL(p‖q) over heads and valid query rows, in nats, (B). log_p, log_q: finite, (B, H, T, T)."""
    return (log_p.exp() * (log_p - log_q)).masked_fill(~cells(mask), 0.0).sum((1, 2, 3))
