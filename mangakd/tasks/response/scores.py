"""What a language model's answer to a batch is worth: sums over the target tokens of each row, in chunks of tokens.

    nll        Σ −log q(target)
    right      Σ [the most probable token is the target]
    gaps       Σ (q(most probable) − right), apart by bins of q(most probable)      (B, BINS)
    kl         Σ KL(teacher ‖ q), over the tokens that both models have
    agreement  Σ [the most probable token of both models is the same]

A teacher that answers with its K best tokens gives the KL over these and all others as one bucket: at most the exact one.
Drawn tokens, and a temperature other than 1, give no KL.

Shapes: B rows, P target tokens of the batch, V vocabulary, D hidden size. Logits exist for one chunk of tokens at a time.
"""

import torch
from torch import Tensor

from mangakd.core.token_logits import Draws, FromStates, TokenLogits, TopK
from mangakd.evaluation.statistics import BINS, EDGES
from mangakd.losses.chunked import chunk_size
from mangakd.losses.token_divergence import forward_kl
from mangakd.losses.token_views import view

Values = dict[str, Tensor]


@torch.no_grad()
def row_sums(own: FromStates, targets: Tensor, owners: Tensor, rows: int, teacher: TokenLogits | None = None) -> Values:
    """Name → (B, …) float64 on the CPU. targets: tokens (P). owners: the row of each (P). rows: B."""
    size, own = chunk_size(own.head.vocabulary), FromStates(own.states, own.head.ready())
    chunks = [slice(start, start + size) for start in range(0, len(own), size)]
    parts = [_of_chunk(own[chunk], targets[chunk], None if teacher is None else teacher[chunk]) for chunk in chunks]
    each = {name: torch.cat([part[name] for part in parts]).double() for name in parts[0]}
    sure = each.pop("confidence")
    place = torch.bucketize(sure, torch.from_numpy(EDGES), right=True)
    each["gaps"] = torch.zeros(len(sure), BINS, dtype=sure.dtype).scatter_(
        1, place[:, None], (sure - each["right"])[:, None]
    )
    owners = owners.cpu()
    return {
        name: values.new_zeros(rows, *values.shape[1:]).index_add_(0, owners, values) for name, values in each.items()
    }


def _of_chunk(own: FromStates, targets: Tensor, teacher: TokenLogits | None) -> Values:
    """Of each token (C), on the CPU: MPS has no float64."""
    logits = own.head.logits(own.states)
    log_q = torch.log_softmax(logits, -1)
    best, first = log_q.max(-1)
    values = {"nll": -log_q.gather(1, targets[:, None])[:, 0], "right": first == targets, "confidence": best.exp()}
    if teacher is not None:
        values |= _beside(logits, first, teacher)
    return {name: each.cpu() for name, each in values.items()}


def _beside(logits: Tensor, first: Tensor, teacher: TokenLogits) -> Values:
    """first: the student's most probable tokens."""
    if isinstance(teacher, Draws):
        return {}
    if isinstance(teacher, TopK):
        agreement = teacher.ids.gather(1, teacher.log_probs.argmax(-1, keepdim=True))[:, 0] == first
        return {"agreement": agreement} | ({"kl": _kl(logits, teacher)} if teacher.temperature == 1 else {})
    other = teacher.head.logits(teacher.states)
    common = min(logits.shape[1], other.shape[1])
    return {"agreement": other.argmax(-1) == first, "kl": _kl(logits[:, :common], other[:, :common])}


def _kl(logits: Tensor, teacher: Tensor | TopK) -> Tensor:
    return view(logits, None, teacher, 1.0).compare(forward_kl)[0]
