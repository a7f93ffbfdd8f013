"""What a language model's answer to a batch is worth: sums over the target tokens of each row, in chunks of tokens.

    nll        Σ −log q(target)
    right      Σ [the most probable token is the target]
    gaps       Σ (q(most probable) − right), apart by bins of q(most probable)      (B, BINS)
    kl         Σ KL(teacher ‖ q), over the tokens that both models have
    bucket_kl  the same of the K best tokens that are stored of a teacher, and all others as one bucket: at most the exact KL
    agreement  Σ [the most probable token of both models is the same]

A stored teacher answers with its K best tokens or with drawn ones. Its own scores, and the agreement with it, are exact, because
the store also holds what they need (`Facts`). Drawn tokens, and best tokens at a temperature other than 1, give no KL.

Shapes: B rows, P target tokens of the batch, V vocabulary, D hidden size. Logits exist for one chunk of tokens at a time.
"""

import torch
from torch import Tensor

from mangakd.core.outputs import TARGETS, Batch
from mangakd.core.token_logits import Draws, FromStates, TokenLogits, TopK
from mangakd.evaluation.statistics import BINS, EDGES
from mangakd.losses.chunked import chunk_size
from mangakd.losses.token_divergence import forward_kl
from mangakd.losses.token_views import view
from mangakd.tasks.base import Model

Values = dict[str, Tensor]


def sums_of(model: Model, batch: Batch, teacher: Model | None) -> Values:
    """The sums of a model's answer, beside the teacher's where it is asked."""
    own, targets = model(batch).tokens, batch["student"][TARGETS]
    assert own is not None
    other = None if teacher is None else teacher(batch).tokens
    return row_sums(own, batch["next"], targets.nonzero()[:, 0], len(targets), other)


@torch.no_grad()
def row_sums(
    own: TokenLogits, targets: Tensor, owners: Tensor, rows: int, teacher: TokenLogits | None = None
) -> Values:
    """Name → (B, …) float64 on the CPU. targets: tokens (P). owners: the row of each (P). rows: B."""
    size = max(len(own), 1)
    if isinstance(own, FromStates):
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


def _of_chunk(own: TokenLogits, targets: Tensor, teacher: TokenLogits | None) -> Values:
    """Of each token (C), on the CPU: MPS has no float64."""
    if not isinstance(own, FromStates):
        return _of_store(own, targets)
    logits = own.head.logits(own.states)
    log_q = torch.log_softmax(logits, -1)
    best, first = log_q.max(-1)
    values = {"nll": -log_q.gather(1, targets[:, None])[:, 0], "right": first == targets, "confidence": best.exp()}
    if teacher is not None:
        values |= _beside(logits, first, teacher)
    return {name: each.cpu() for name, each in values.items()}


def _of_store(own: TopK | Draws, targets: Tensor) -> Values:
    """The scores of a teacher that answers from a store."""
    assert own.facts is not None
    right, sure = own.facts.best == targets, own.facts.best_log_prob.exp()
    return {name: each.cpu() for name, each in {"nll": -own.facts.target, "right": right, "confidence": sure}.items()}


def _beside(logits: Tensor, first: Tensor, teacher: TokenLogits) -> Values:
    """first: the student's most probable tokens."""
    if isinstance(teacher, TopK | Draws):
        best = _best(teacher)
        values = {} if best is None else {"agreement": best == first}
        if isinstance(teacher, TopK) and teacher.temperature == 1:
            values["bucket_kl"] = _kl(logits, teacher)
        return values
    other = teacher.head.logits(teacher.states)
    common = min(logits.shape[1], other.shape[1])
    return {"agreement": other.argmax(-1) == first, "kl": _kl(logits[:, :common], other[:, :common])}


def _best(teacher: TopK | Draws) -> Tensor | None:
    """Its most probable tokens (C); None for drawn tokens alone."""
    if teacher.facts is not None:
        return teacher.facts.best
    if isinstance(teacher, Draws):
        return None
    return teacher.ids.gather(1, teacher.log_probs.argmax(-1, keepdim=True))[:, 0]


def _kl(logits: Tensor, teacher: Tensor | TopK) -> Tensor:
    return view(logits, None, teacher, 1.0).compare(forward_kl)[0]
