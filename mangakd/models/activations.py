"""Activations of torch.nn as text: `torch.nn.modules.activation.LeakyReLU(negative_slope=0.3)`.

sentence-transformers writes the class without its arguments, and makes it without them: LeakyReLU(0.3) comes back as
LeakyReLU(0.01). Arguments that are not the default ones are written here as a call, which sentence-transformers refuses.
"""

import ast
import contextlib
import re
from typing import Any

from torch import nn

from mangakd.core.errors import UserError, near

KNOWN = (*(name for name in nn.modules.activation.__all__ if name != "MultiheadAttention"), "Identity")


def activation_call(module: nn.Module) -> str:
    """The class of an activation; with its arguments, if they are not the default ones.

    Raises UserError for what is none of torch.nn, which no other program could make again, and for one with weights.
    """
    kind = type(module)
    name = f"{kind.__module__}.{kind.__qualname__}"
    text = re.sub(r"(, )?inplace=True", "", repr(module))  # changes no value
    if kind.__name__ not in KNOWN or not name.startswith("torch.nn.modules.") or any(True for _ in module.parameters()):
        raise UserError(f"the activation {text} cannot be written into a folder: use one of torch.nn without weights.")
    with contextlib.suppress(TypeError):  # it has no default arguments
        if text == repr(kind()):
            return name
    return f"{name}({text.partition('(')[2]}"


def activation(call: str, where: object) -> nn.Module:
    """The inverse of `activation_call`; also of a class's name alone. where: for messages.

    Raises UserError for a call that makes no activation of torch.nn, and for an activation with weights of its own.
    """
    name, _, arguments = call.partition("(")
    package, _, name = name.rpartition(".")
    if name not in KNOWN or not f"{package or 'torch.nn'}.".startswith("torch.nn."):
        raise UserError(f"{where}: the activation {call!r} is none of torch.nn{near(name, KNOWN)}")
    try:
        tree: Any = ast.parse(f"f({arguments or ')'}", mode="eval").body
        values = [ast.literal_eval(value) for value in tree.args]
        module = getattr(nn, name)(*values, **{each.arg: ast.literal_eval(each.value) for each in tree.keywords})
    except (AttributeError, SyntaxError, TypeError, ValueError) as error:
        raise UserError(f"{where}: the activation {call!r} cannot be made: {error}.") from error
    if any(True for _ in module.parameters()):
        raise UserError(f"{where}: the activation {call!r} has weights of its own, which is not supported.")
    return module
