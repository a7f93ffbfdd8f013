"""Packs the sequences of a batch into rows without padding, for language models.

    input_ids       a a a b b | c c c c ·        two rows of N = 5 for three sequences of 3, 2 and 4 tokens, · padding
    position_ids    0 1 2 0 1 | 0 1 2 3 0

There is no mask: transformers sees from position_ids that restart where a sequence begins, and keeps the sequences apart under
sdpa, eager (in rows as long as the longest sequence) and flash_attention_2 (in one row). It does so without a cache alone.
Shapes: S sequences of T tokens with padding, R rows of N tokens.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from mangakd.core.errors import UserError

KEY = "hardware.packing=true"
# Largest |Δ state| of sequences alone and packed, in shares of the largest state; in 16 bits for weights of 16 bits.
_NEAR, _NEAR_HALF = 1e-5, 0.02


def pack(inputs: Mapping[str, Tensor], one_row: bool) -> tuple[dict[str, Tensor], Tensor]:
    """input_ids and position_ids (R, N); places (S, T): of each token in the rows, laid end to end.

    inputs: input_ids and attention_mask (S, T). Places of padding mean nothing.
    """
    mask = inputs["attention_mask"].bool()
    lengths = mask.sum(1).tolist()
    width = sum(lengths) if one_row else max(lengths)
    starts, rows = _rows(lengths, width)
    positions = mask.cumsum(1) - 1
    places = positions + torch.tensor(starts, device=mask.device)[:, None]
    packed = {name: mask.new_zeros(rows * width, dtype=torch.long) for name in ("input_ids", "position_ids")}
    packed["input_ids"][places[mask]] = inputs["input_ids"][mask]
    packed["position_ids"][places[mask]] = positions[mask]
    return {name: each.view(rows, width) for name, each in packed.items()}, places


def _rows(lengths: Sequence[int], width: int) -> tuple[list[int], int]:
    """Where each sequence starts in rows laid end to end, and the number of rows. Long sequences choose first."""
    starts, free = [0] * len(lengths), list[int]()
    for i in sorted(range(len(lengths)), key=lambda i: -lengths[i]):
        row = next((row for row, room in enumerate(free) if room >= lengths[i]), len(free))
        if row == len(free):
            free.append(width)
        starts[i] = row * width + width - free[row]
        free[row] -= lengths[i]
    return starts, len(free)


def at_targets(states: Tensor, places: Tensor, targets: Tensor) -> Tensor:
    """The states (P, D) that predict the targets. states: (R, N, D) of packed rows. places, targets: (S, T)."""
    return states.flatten(0, 1)[places[:, :-1][targets[:, 1:]]]


@torch.no_grad()
def check(body: Any, accepts: set[str], always: Mapping[str, Any], name: str) -> None:
    """Raises UserError for a model whose states of a sequence depend on others in its row.

    body: the decoder. accepts: its arguments. always: those that it always gets.
    """
    if not {"position_ids", "use_cache"} <= accepts:
        raise UserError(
            f"{KEY} needs a model that reads positions; {name} reads {', '.join(sorted(accepts & _SHOWN))}. Remove it."
        )
    device = next(body.parameters()).device
    ids = torch.arange(2, 26, device=device).view(2, 12) % body.config.vocab_size
    mask = torch.ones_like(ids)
    mask[1, 7:] = 0
    was_training = body.training
    body.eval()
    alone = body(input_ids=ids, attention_mask=mask, **always).last_hidden_state
    inputs, places = pack({"input_ids": ids, "attention_mask": mask}, one_row=True)
    together = body(**inputs, **always).last_hidden_state.flatten(0, 1)[places]
    body.train(was_training)
    real = mask.bool()
    apart = float((alone - together)[real].float().abs().max() / alone[real].float().abs().max())
    if not apart <= (_NEAR if alone.dtype.itemsize > 2 else _NEAR_HALF):
        raise UserError(
            f"{KEY}: in {name}, a {body.config.model_type}, packed sequences see each other (their states change by "
            f"{apart:.2g} of the largest). Remove it; batches of similar length hold little padding as it is."
        )


_SHOWN = {"input_ids", "attention_mask", "token_type_ids"}
