"""Where tokens lie in the inputs of a loss: what it may not read, and the same inputs with more padding."""

import torch
from losses_case import MASK, Case, T, documents, unlabelled_rows
from torch import Tensor

LEFT, RIGHT = 1, 2  # padding added on each side


def masked(case: Case, name: str, tensor: Tensor, tensors: dict[str, Tensor]) -> Tensor:
    """What of `tensor` the loss may not read, bool of its shape: padded positions, documents that are not there, queries that do
    not count, and where the student's logits have no label."""
    unread = torch.zeros(tensor.shape, dtype=torch.bool)
    for axis in token_axes(name, tensor.dim()):
        shape = [size if i in (0, axis) else 1 for i, size in enumerate(tensor.shape)]
        unread |= (MASK == 0).view(shape)
    if case.row.groups and name.endswith("logits"):
        unread |= ~documents(tensor, tensors["sizes"]) | ~torch.from_numpy(case.counted(case.loss.unit))[:, None]
    if name.endswith("vector"):
        unread |= ~documents(tensor, tensors["sizes"])[..., None]
        if case.loss.requires.labels:
            unread |= unlabelled_rows(tensors)[:, None, None]
    if name == "student.logits" and "labels" in tensors:
        unlabelled = tensors["labels"] == -100
        unread |= unlabelled.view(*unlabelled.shape, *[1] * (tensor.dim() - unlabelled.dim()))
    return unread


def token_axes(name: str, dims: int) -> list[int]:
    kind = name.split(".")[1] if "." in name else name
    return {
        "hidden": [1],
        "states": [1],
        "ids": [1],
        "next": [1],
        "query": [2],
        "key": [2],
        "value": [2],
        "probs": [2, 3],
    }.get(kind, [])


def token_slices(name: str, dims: int) -> tuple[slice, ...]:
    """Where the original positions lie in a padded tensor."""
    axes = token_axes(name, dims)
    return tuple(slice(LEFT, LEFT + T) if axis in axes else slice(None) for axis in range(dims))


def pad_tokens(name: str, tensor: Tensor, case: Case) -> Tensor:
    """`tensor` with garbage positions before and after along its token axes."""
    shape = [n + (LEFT + RIGHT) * (axis in token_axes(name, tensor.dim())) for axis, n in enumerate(tensor.shape)]
    if shape == list(tensor.shape):
        return tensor
    garbage = torch.tensor(case.rng.uniform(1, 9, size=shape), dtype=tensor.dtype)
    garbage[token_slices(name, tensor.dim())] = tensor
    return garbage
