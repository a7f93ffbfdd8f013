"""What is stored of a language model's answer, and what a loss gets back of it.

    kind      stored of each target token                      gives             allows
    topk      the K most probable tokens with log p at T,      TopK              every divergence, of K + 1 buckets, at that T
              and the exact log of the mass of all others
    draws     N tokens drawn from p at T                       Draws             forward KL at that T
    states    the final hidden state                           FromStates        everything, at every T

The head of the teacher lies once beside the states (lm_head_file.py). Logits exist for a chunk of positions at a time, as in the
loss (losses/chunked.py).

Draws come from numbers that the sequence's key seeds, by inversion of the distribution function: equal for every batch, rank and
resumed fill.

Shapes: P target positions, V vocabulary, K, N, D as above. Source of draws: Anshumann et al. 2025 (arXiv:2503.16870).
"""

from collections.abc import Iterator, Mapping

import numpy as np
import torch
from torch import Tensor

from mangakd.core.outputs import TARGETS, Batch
from mangakd.core.token_logits import Draws, Facts, FromStates, LmHead, TokenLogits, TopK
from mangakd.losses.chunked import chunk_size
from mangakd.store.manifest import Manifest

ANSWERS: dict[str, type[TokenLogits]] = {"topk": TopK, "draws": Draws, "states": FromStates}
"""Kind of store → what it gives."""
Arrays = Mapping[str, np.ndarray]


def fields_of(answer: FromStates, batch: Batch, manifest: Manifest) -> dict[str, np.ndarray]:
    """What a store of `manifest` keeps of an answer to `batch`: fields of the codec, (P, …)."""
    if manifest.kind == "states":
        return {"states": answer.states.float().cpu().numpy()}
    head, t = answer.head.ready(), manifest.temperature
    uniform = torch.from_numpy(_uniform(batch, manifest.size)) if manifest.kind == "draws" else None
    parts = []
    for rows in _chunks(answer):
        logits = head.logits(answer.states[rows])
        log_p = torch.log_softmax(logits / t, -1)
        part = _best(log_p, manifest.size) if uniform is None else _drawn(log_p, uniform[rows])
        part |= _facts(log_p if t == 1 else torch.log_softmax(logits, -1), batch["next"][rows])
        parts.append({name: each.cpu().numpy() for name, each in part.items()})
    return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}


def answer_of(arrays: Arrays, manifest: Manifest, head: LmHead | None, device: torch.device) -> TokenLogits:
    """The teacher's answer at P positions, of a store's records. head: the teacher's, beside states."""
    each = {name: torch.from_numpy(values).to(device, non_blocking=True) for name, values in arrays.items()}
    if manifest.kind == "states":
        assert head is not None
        return FromStates(each["states"], head)
    facts = Facts(each["target"], each["best"], each["best_log_prob"])
    if manifest.kind == "draws":
        return Draws(each["ids"], manifest.temperature, facts)
    # Rounding to 16 bits moves the sum of the probabilities by up to 3e-4.
    total = torch.logaddexp(each["log_probs"].logsumexp(-1), each["tail"])
    return TopK(each["ids"], each["log_probs"] - total[:, None], each["tail"] - total, manifest.temperature, facts)


def difference(live: FromStates, stored: TokenLogits, batch: Batch) -> float:
    """How far a stored answer is from the live one: max |Δp| over the stored tokens, or the share of other draws."""
    worst = 0.0
    for rows in _chunks(live):
        some, own = stored[rows], live[rows]
        t = 1.0 if isinstance(some, FromStates) else some.temperature
        log_p = torch.log_softmax(own.head.logits(own.states) / t, -1)
        if isinstance(some, FromStates):
            gap = (log_p.exp() - torch.softmax(some.head.logits(some.states), -1)).abs().max()
        elif isinstance(some, TopK):
            tail = log_p.scatter(1, some.ids, -torch.inf).logsumexp(-1)
            gap = (log_p.gather(1, some.ids).exp() - some.log_probs.exp()).abs().max()
            gap = torch.maximum(gap, (tail.exp() - some.tail.exp()).abs().max())
        else:
            uniform = torch.from_numpy(_uniform(batch, some.ids.shape[1])[rows])
            gap = (_drawn(log_p, uniform)["ids"] != some.ids).float().mean()
        worst = float(np.maximum(worst, float(gap)))  # keeps a NaN
    return worst


def _chunks(answer: FromStates) -> Iterator[slice]:
    size = chunk_size(answer.head.vocabulary)
    return (slice(start, start + size) for start in range(0, len(answer), size))


def _best(log_p: Tensor, k: int) -> dict[str, Tensor]:
    """The tail comes from the others' own sum: 1 − Σ p of the best would be 0 in fp32 where they have nearly all."""
    best, ids = log_p.topk(k)
    return {"ids": ids, "log_probs": best, "tail": log_p.scatter(1, ids, -torch.inf).logsumexp(-1)}


def _facts(log_p: Tensor, targets: Tensor) -> dict[str, Tensor]:
    """log_p: at T = 1."""
    best_log_prob, best = log_p.max(-1)
    return {"target": log_p.gather(1, targets[:, None])[:, 0], "best": best, "best_log_prob": best_log_prob}


def _drawn(log_p: Tensor, uniform: Tensor) -> dict[str, Tensor]:
    """Tokens (C, N) at which the distribution function (C, V) passes the numbers (C, N)."""
    exact = torch.float32 if log_p.device.type == "mps" else torch.float64
    reached = log_p.to(exact).exp_().cumsum(-1)
    # Rounded sums end beside 1: scaled numbers never lie beyond the last token.
    ids = torch.searchsorted(reached, uniform.to(exact).to(log_p.device) * reached[:, -1:], right=True)
    return {"ids": ids.clamp_(max=log_p.shape[1] - 1)}


def _uniform(batch: Batch, number: int) -> np.ndarray:
    """(P, N) numbers in [0, 1): of each sequence from a generator that its key seeds."""
    keys = batch["key"].cpu().numpy().astype(np.uint64)
    counts = batch["teacher"][TARGETS].sum(1).cpu().numpy()
    return np.concatenate([
        np.random.Generator(np.random.Philox(key=key)).random((count, number)) for key, count in zip(keys, counts, strict=True)
    ])  # fmt: skip
