"""Bring a teacher's label order to the data's, by name. A wrong order trains to about chance without a word."""

import unicodedata
from collections import Counter
from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor

from mangakd.core.errors import UserError


def label_name(value: Any) -> str:
    """The name that a scalar of a config stands for: whole floats are written as integers, as in the data.

    Raises UserError for null and for what is no scalar.
    """
    if not isinstance(value, str | int | float):
        raise UserError(f"{value!r} is no name of a label; give a text or a number.")
    return str(int(value)) if isinstance(value, float) and value.is_integer() else str(value)


def alignment(teacher: tuple[str, ...], data: tuple[str, ...], path: str) -> Tensor | None:
    """Index (C) with teacher_logits[..., index] in the data's order; None when the orders are equal.

    Raises UserError when the sets differ, listing what each side lacks.
    """
    if teacher == data:
        return None
    repeated = {label for label in teacher if teacher.count(label) > 1}
    if repeated:
        raise UserError(
            f"the teacher {path} names the label {_list(repeated, ())} more than once, so its head cannot be brought to the "
            "data's order. Name its outputs in order with teacher.labels=[…]."
        )
    if set(teacher) != set(data):
        only, wanted = set(teacher) - set(data), set(data) - set(teacher)
        alike = _alike([*only, *wanted])
        hint = " Names in quotes differ only in case, spaces or in how their characters are encoded." if alike else ""
        raise UserError(
            f"the teacher {path} and the data have different labels: {len(teacher)} against {len(data)}; "
            f"only the teacher has {_list(only, alike)}, only the data has {_list(wanted, alike)}.{hint} "
            "If the order of its head is known, name it with teacher.labels=[…]; "
            "to fine-tune the teacher on this data, set teacher.fit.mode=always."
        )
    position = {label: i for i, label in enumerate(teacher)}
    return torch.tensor([position[label] for label in data])


def _alike(labels: Iterable[str]) -> set[str]:
    """Those that a reader cannot tell from another one of them."""
    looks = {label: _looks(label) for label in labels}
    count = Counter(looks.values())
    return {label for label, look in looks.items() if count[look] > 1}


def _looks(label: str) -> str:
    """Without case, spaces, invisible characters, and differences of encoding such as width and composition."""
    visible = (c for c in unicodedata.normalize("NFKC", label) if unicodedata.category(c) not in ("Cc", "Cf"))
    return "".join("".join(visible).casefold().split())


def _list(labels: Iterable[str], alike: Iterable[str]) -> str:
    """In order of the names; those that look like another are quoted, with escapes for all but ASCII, and come first."""
    names = sorted(labels, key=lambda label: (label not in alike, label))
    shown = [ascii(name) if name in alike or _hidden(name) else name for name in names[:5]]
    return ", ".join(shown) + (f" and {len(names) - 5} more" if len(names) > 5 else "") if names else "none"


def _hidden(name: str) -> bool:
    """Whether a name holds what no reader sees."""
    return not name.isprintable() or name != name.strip() or not name
