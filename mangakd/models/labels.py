"""Bring a teacher's label order to the data's, by name. A wrong order trains to about chance without a word."""

import torch
from torch import Tensor

from mangakd.core.errors import UserError


def alignment(teacher: tuple[str, ...], data: tuple[str, ...], path: str) -> Tensor | None:
    """Index (C) with teacher_logits[..., index] in the data's order; None when the orders are equal.

    Raises UserError when the sets differ, listing what each side lacks.
    """
    if teacher == data:
        return None
    repeated = {label for label in teacher if teacher.count(label) > 1}
    if repeated:
        raise UserError(
            f"the teacher {path} names the label {_list(repeated)} more than once, so its head cannot be brought to the "
            "data's order. Name its outputs in order with teacher.labels=[…]."
        )
    if set(teacher) != set(data):
        raise UserError(
            f"the teacher {path} and the data have different labels: {len(teacher)} against {len(data)}; "
            f"only the teacher has {_list(set(teacher) - set(data))}, only the data has {_list(set(data) - set(teacher))}. "
            "If the order of its head is known, name it with teacher.labels=[…]; "
            "to fine-tune the teacher on this data, set teacher.fit.mode=always."
        )
    position = {label: i for i, label in enumerate(teacher)}
    return torch.tensor([position[label] for label in data])


def _list(labels: set[str]) -> str:
    names = sorted(labels)
    return ", ".join(names[:5]) + (f" and {len(names) - 5} more" if len(names) > 5 else "") if names else "none"
