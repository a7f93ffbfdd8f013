"""Activation checkpointing: a layer keeps its input alone, and backward computes the rest again (Chen et al. 2016).

A step takes about a third more arithmetic and keeps one layer's activations in place of all layers'. The result is the same, bit
for bit: dropout draws the same numbers again. What losses tap stays in memory. Source: arXiv:1604.06174.
"""

import contextlib
from collections.abc import Iterator
from typing import Any

from mangakd.core.errors import UserError
from mangakd.models.encoder import Encoder


@contextlib.contextmanager
def recomputing(student: Encoder, active: bool) -> Iterator[None]:
    """Context in which the student's layers compute their activations again in backward."""
    if not active:
        yield
        return
    # Reentrant checkpointing would lose the gradients of tapped states, and of layers whose input needs none.
    student.model.gradient_checkpointing_enable({"use_reentrant": False})
    try:
        yield
    finally:
        student.model.gradient_checkpointing_disable()


def check(active: bool, model: Any) -> None:
    """Raises UserError for an architecture that transformers cannot checkpoint. model: on the meta device."""
    if active and not model.supports_gradient_checkpointing:
        raise UserError(
            f"hardware.activation_checkpointing=true: transformers has none for {model.config.model_type}. Set it to false, "
            "and hardware.batch_size lower with hardware.accumulate higher."
        )
