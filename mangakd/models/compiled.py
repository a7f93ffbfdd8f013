"""Models that run compiled. In place, so that names in checkpoints stay what they are."""

import contextlib
from collections.abc import Iterator, Sequence
from typing import Any

import torch


@contextlib.contextmanager
def compiled(bodies: Sequence[Any]) -> Iterator[None]:
    """Within it these modules run compiled.

    dynamic: batches differ in length; one graph for training and one for evaluation serve them all.
    """
    for body in bodies:
        body.compile(dynamic=True)
    try:
        yield
    finally:
        for body in bodies:
            body._compiled_call_impl = None  # torch has no public way back
        # A sweep's graphs would add up to torch's limit, from which on nothing is compiled any more.
        torch.compiler.reset()
