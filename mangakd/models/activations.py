"""Activations of torch.nn as text: `torch.nn.modules.activation.LeakyReLU(negative_slope=0.3)`.

sentence-transformers writes the class without its arguments, and makes it without them: LeakyReLU(0.3) comes back as
LeakyReLU(0.01). Arguments that are not the default ones are written here as a call, which sentence-transformers refuses.
"""

import ast
import contextlib
import re
from typing import Any

from torch import nn

from mangakd.core.errors import UserError


def activation_call(module: nn.Module) -> str:
    """The class of an activation; with its arguments, if they are not the default ones.

    Raises UserError for what is no module of torch.nn: no other program could make it again.
    """
    kind = type(module)
    name = f"{kind.__module__}.{kind.__qualname__}"
    text = re.sub(r"(, )?inplace=True", "", repr(module))  # changes no value
    if not name.startswith("torch.nn.modules.") or any(module.children()):
        raise UserError(f"the activation {text} cannot be written into a folder: use one module of torch.nn.")
    with contextlib.suppress(TypeError):  # it has no default arguments
        if text == repr(kind()):
            return name
    return f"{name}({text.partition('(')[2]}"


def activation(call: str, where: object) -> nn.Module:
    """The inverse of `activation_call`. where: for the message. Raises UserError for a call that makes no module of torch.nn."""
    try:
        name, _, arguments = call.partition("(")
        tree: Any = ast.parse(f"f({arguments or ')'}", mode="eval").body
        values = [ast.literal_eval(value) for value in tree.args]
        keywords = {each.arg: ast.literal_eval(each.value) for each in tree.keywords}
        kind = getattr(nn, name.rpartition(".")[2])
        if not name.startswith("torch.nn.") or not issubclass(kind, nn.Module):
            raise TypeError("it is none of torch.nn")
        return kind(*values, **keywords)
    except (AttributeError, SyntaxError, TypeError, ValueError) as error:
        raise UserError(
            f"{where}: the activation {call!r} cannot be made ({error}). Only modules of torch.nn are known."
        ) from error
