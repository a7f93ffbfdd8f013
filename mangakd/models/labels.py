"""Bring a teacher's label order to the data's, by name. A wrong order trains to about chance without a word."""

import unicodedata
from collections import Counter
from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor

from mangakd.core.errors import UserError
from mangakd.core.spec import Head, numbered


def label_name(value: Any) -> str:
    """The name that a scalar of a config stands for: whole floats are written as integers, as in the data.

    Raises UserError for null and for what is no scalar.
    """
    if not isinstance(value, str | int | float):
        raise UserError(f"{value!r} is no name of a label; give a text or a number.")
    return str(int(value)) if isinstance(value, float) and value.is_integer() else str(value)


def alignment(head: Head, task: Head, path: str) -> Tensor | None:
    """Index (C) with teacher_logits[..., index] in the task's order; None when the orders are equal.

    head: of the teacher. Raises UserError if it is of another kind than the task's, or the label sets differ, listing what each
    side lacks.
    """
    _check_kind(head, task, path)
    if head.is_models_own:
        return None
    teacher, data = (side.names or numbered(side.outputs) for side in (head, task))
    if teacher == data or (head.kind != "labels" and head.outputs == task.outputs):
        return None
    repeated = {label for label in teacher if teacher.count(label) > 1}
    if repeated:
        raise UserError(
            f"the teacher {path} names the label {_list(repeated, ())} more than once, so its head cannot be brought to the "
            "data's order. Name its outputs in order with teacher.labels=[…]."
        )
    if set(teacher) != set(data):
        only, missing = set(teacher) - set(data), set(data) - set(teacher)
        alike = _alike([*only, *missing])
        hint = " Names in quotes differ only in case, spaces or in how their characters are encoded." if alike else ""
        if not head.names:
            hint = " LABEL_0 and so on are no names: transformers writes them into a config.json that has none."
        raise UserError(
            f"the teacher {path} and the data have different labels: {len(teacher)} against {len(data)}; "
            f"only the teacher has {_list(only, alike)}, only the data has {_list(missing, alike)}.{hint} "
            "If the order of its head is known, name it with teacher.labels=[…]; "
            "to fine-tune the teacher on this data, set teacher.fit.mode=always."
        )
    position = {label: i for i, label in enumerate(teacher)}
    return torch.tensor([position[label] for label in data])


def _check_kind(head: Head, task: Head, path: str) -> None:
    if (head.kind, head.several) != (task.kind, task.several):
        cure = "Set task.problem" if head.kind == task.kind else "Give a teacher of this task"
        raise UserError(
            f"the teacher {path} was fine-tuned for {head.problem_type or head.kind} and answers with {head}; the task needs "
            f"{task.problem_type or task.kind}, {task}. {cure}, or set teacher.fit.mode=always to fine-tune it on this data."
        )


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
    listing = [ascii(name) if name in alike or _hidden(name) else name for name in names[:5]]
    return ", ".join(listing) + (f" and {len(names) - 5} more" if len(names) > 5 else "") if names else "none"


def _hidden(name: str) -> bool:
    """Whether a name holds what no reader sees."""
    return not name.isprintable() or name != name.strip() or not name
