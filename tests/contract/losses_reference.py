"""What losses must equal: independent float64 numpy implementations of their formulas, named by the rows of losses_table.py.

Written from the papers and not from the code under test: plain loops over examples, pairs and heads, slicing the valid tokens
out instead of masking. Each gives the sum and the count; its finite differences are the reference gradient.
Shapes: B batch, T tokens, C classes, D hidden size, H heads, M ensemble members.
"""

import math
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
from scipy.optimize import brentq

Arrays = Mapping[str, Any]
"""`student.logits`, `teacher.hidden.2`, `student.query.1`, `labels`, `tokens` (per example, the valid positions),
`state.<parameter>` of the loss."""
Reference = Callable[[Arrays], tuple[float, int]]

VALIDATION = np.random.default_rng(7).normal(size=(40, 5)) * 3 - [0, 0, 0, 0, 20]  # teacher's logits; e is never said


# --- references: probabilities ---------------------------------------------------------------------------------------


def softmax(x: np.ndarray) -> np.ndarray:
    e = np.exp(x - x.max(-1, keepdims=True))
    return e / e.sum(-1, keepdims=True)


def sigmoid(x: np.ndarray) -> np.ndarray:
    return 1 / (1 + np.exp(-x))


def kl(p: np.ndarray, q: np.ndarray) -> float:
    return float(sum(a * math.log(a / b) for a, b in zip(np.ravel(p), np.ravel(q), strict=True) if a > 0))


def teacher_probs(x: Arrays, t: Any, squash: Callable[[np.ndarray], np.ndarray]) -> np.ndarray:
    if "teacher.members" not in x:
        return squash(x["teacher.logits"] / t)
    return sum(w * squash(z / t) for w, z in zip(x["teacher.weights"], x["teacher.members"], strict=True))


Temperature = float | Callable[[np.ndarray], np.ndarray]
"""A number, or a function of the teacher's probabilities at T = 1 (B, C) that gives each row's, or each cell's."""


def by_sample(t: float) -> Temperature:
    return lambda p: np.array([1 + (t - 1) * row.max() for row in p])


def by_class(t: float) -> Temperature:
    said: dict[int, list[float]] = {}
    for row in softmax(VALIDATION):
        said.setdefault(int(row.argmax()), []).append(row.max())
    every = np.mean([sure for found in said.values() for sure in found])
    assert 4 not in said, "a class that the teacher never gives must be covered"
    return lambda p: np.array([1 + (t - 1) * np.mean(said.get(int(row.argmax()), every)) for row in p])


def by_cell(t: float) -> Temperature:
    return lambda p: 1 + (t - 1) * np.maximum(p, 1 - p)


def by_label(t: float) -> Temperature:
    on = sigmoid(VALIDATION)
    return lambda p: np.broadcast_to(1 + (t - 1) * np.maximum(on, 1 - on).mean(0), p.shape)


def of_entropy(share: float, spread: Callable[[float], Temperature] | None = None) -> float:
    """The t at which the mean entropy of softmax(VALIDATION / T) is share · log 5; T = t, or spread(t)."""

    def short(t: float) -> float:
        rows = spread(t)(softmax(VALIDATION)) if spread else np.full(len(VALIDATION), t)  # type: ignore[operator]
        p = softmax(VALIDATION / rows[:, None])
        return float(-(p * np.log(p)).sum(-1).mean()) - share * math.log(5)

    return brentq(short, 0.8, 500, xtol=1e-12)


def of_binary_entropy(share: float) -> float:
    def short(t: float) -> float:
        on = sigmoid(VALIDATION / t)
        return float(-(on * np.log(on) + (1 - on) * np.log(1 - on)).mean()) - share * math.log(2)

    return brentq(short, 0.8, 500, xtol=1e-12)


def output(name: str, t: Temperature = 4.0, *, beta: float = 0.5, alpha: float = 1.0) -> Reference:
    def dkd(p: np.ndarray, q: np.ndarray, y: int) -> float:
        pair = kl(np.array([p[y], 1 - p[y]]), np.array([q[y], 1 - q[y]]))
        return alpha * pair + beta * kl(np.delete(p, y) / (1 - p[y]), np.delete(q, y) / (1 - q[y]))

    def jsd(p: np.ndarray, q: np.ndarray) -> float:
        mix = beta * p + (1 - beta) * q
        return beta * kl(p, mix) + (1 - beta) * kl(q, mix)

    forms = {"forward_kl": kl, "reverse_kl": lambda p, q: kl(q, p), "jsd": jsd}

    def single(x: Arrays) -> tuple[float, int]:
        each = t(teacher_probs(x, 1.0, softmax)) if callable(t) else np.full(len(x["student.logits"]), t)
        p, q = teacher_probs(x, each[:, None], softmax), softmax(x["student.logits"] / each[:, None])
        if name == "dkd":
            rows = [b for b, y in enumerate(x["labels"]) if y != -100]
            return sum(each[b] ** 2 * dkd(p[b], q[b], x["labels"][b]) for b in rows), len(rows)
        return sum(each[b] ** 2 * forms[name](p[b], q[b]) for b in range(len(p))), len(p)

    return single


def output_mse(x: Arrays) -> tuple[float, int]:
    difference = x["student.logits"] - x["teacher.logits"]
    return float((difference**2).sum() / difference.shape[1]), len(difference)


def output_mse_multi(x: Arrays) -> tuple[float, int]:
    difference = x["student.logits"] - x["teacher.logits"]
    return float((difference**2).sum()), difference.size


def output_multi(name: str, t: Temperature = 4.0) -> Reference:
    def bernoulli(x: Arrays) -> tuple[float, int]:
        each = t(teacher_probs(x, 1.0, sigmoid)) if callable(t) else np.full(x["student.logits"].shape, t)
        p, q = teacher_probs(x, each, sigmoid), sigmoid(x["student.logits"] / each)
        total = 0.0
        for a, b, own in zip(p.ravel(), q.ravel(), each.ravel(), strict=True):
            on_p, on_q = np.array([a, 1 - a]), np.array([b, 1 - b])
            mix = (on_p + on_q) / 2
            total += (
                own**2
                * {
                    "forward_kl": kl(on_p, on_q),
                    "reverse_kl": kl(on_q, on_p),
                    "jsd": (kl(on_p, mix) + kl(on_q, mix)) / 2,
                }[name]
            )
        return total, p.size

    return bernoulli


def hard(smoothing: float = 0.0, aware: bool = False) -> Reference:
    """aware: the label's own part has weight 1, and not 1 − smoothing."""

    def cross_entropy(x: Arrays) -> tuple[float, int]:
        rows = [b for b, y in enumerate(x["labels"]) if y != -100]
        logs = np.log(softmax(x["student.logits"]))
        own, even = (1.0, smoothing / (1 - smoothing)) if aware else (1 - smoothing, smoothing)
        total = sum(own * logs[b][x["labels"][b]] + even * logs[b].mean() for b in rows)
        return -float(total), len(rows)

    return cross_entropy


def hard_multi(smoothing: float = 0.0, scale: float = 1.0) -> Reference:
    def binary(x: Arrays) -> tuple[float, int]:
        total, count = 0.0, 0
        for q, y in zip(sigmoid(x["student.logits"]).ravel(), x["labels"].ravel(), strict=True):
            if y != -100:
                soft = y * (1 - smoothing) + smoothing / 2
                total, count = total - soft * math.log(q) - (1 - soft) * math.log(1 - q), count + 1
        return scale * total, count

    return binary


# --- references: token-aligned ---------------------------------------------------------------------------------------


def hidden(pairs: list[tuple[int, int]], compare: str = "mse", norm: bool = False) -> Reference:
    def project(x: Arrays, h: np.ndarray, s: int, t: int) -> np.ndarray:
        name = f"state.projections.{s}_to_{t}." + ("0." if norm else "")
        if name + "weight" not in x:
            return h
        h = h @ x[name + "weight"].T + x[name + "bias"]
        if norm:
            h = (h - h.mean(-1, keepdims=True)) / np.sqrt(h.var(-1, keepdims=True) + 1e-5)
            h = h * x[name.replace(".0.", ".1.") + "weight"] + x[name.replace(".0.", ".1.") + "bias"]
        return h

    def distance(h: np.ndarray, g: np.ndarray) -> float:
        if compare == "mse":
            return float(((h - g) ** 2).mean())
        return 1 - float(h @ g / (np.linalg.norm(h) * np.linalg.norm(g)))

    def reference(x: Arrays) -> tuple[float, int]:
        total, count = 0.0, 0
        for s, t in pairs:
            for b, tokens in enumerate(x["tokens"]):
                for i in tokens:
                    h = project(x, x[f"student.hidden.{s}"][b, i], s, t)
                    total, count = total + distance(h, x[f"teacher.hidden.{t}"][b, i]), count + 1
        return total, count

    return reference


def attention(
    pairs: list[tuple[int, int]], compare: str, reduce: Callable[[str, np.ndarray], np.ndarray] | None = None
) -> Reference:
    """reduce: (side, (H, n, n)) → (H', n, n)."""

    def view(x: Arrays, side: str, layer: int, b: int, tokens: np.ndarray) -> np.ndarray:
        if f"{side}.probs.{layer}" in x:  # the eager map, renormalised over valid columns
            cut = x[f"{side}.probs.{layer}"][b][:, tokens][:, :, tokens]
            maps = cut / cut.sum(-1, keepdims=True)
        else:
            query, key = (x[f"{side}.{name}.{layer}"][b][:, tokens] for name in ("query", "key"))
            maps = np.einsum("hid,hjd->hij", query, key) / math.sqrt(query.shape[-1])
            maps = maps if compare == "scores" else softmax(maps)
        return reduce(side, maps) if reduce else maps

    def reference(x: Arrays) -> tuple[float, int]:
        total, count = 0.0, 0
        for s, t in pairs:
            for b, tokens in enumerate(x["tokens"]):
                if len(tokens):
                    a, g = view(x, "student", s, b, tokens), view(x, "teacher", t, b, tokens)
                    total += kl(g, a) if compare == "kl" else float(((a - g) ** 2).sum())
                    count += a.shape[0] * a.shape[1] if compare == "kl" else a.size
        return total, count

    return reference


def relation(pairs: list[tuple[int, int]], names: tuple[str, ...], heads: int, by_text: bool = False) -> Reference:
    """by_text: a text's sum is divided by its tokens, and texts are counted (MiniLMv2, eq. 2)."""

    def maps(x: Arrays, side: str, name: str, layer: int, b: int, tokens: np.ndarray) -> list[np.ndarray]:
        states = np.concatenate(list(x[f"{side}.{name}.{layer}"][b][:, tokens]), axis=-1)  # heads side by side, (n, D)
        return [softmax(part @ part.T / math.sqrt(part.shape[1])) for part in np.split(states, heads, axis=1)]

    def reference(x: Arrays) -> tuple[float, int]:
        total, count = 0.0, 0
        for s, t in pairs:
            for name in names:
                for b, tokens in enumerate(x["tokens"]):
                    if len(tokens):
                        both = [maps(x, *side, b, tokens) for side in (("teacher", name, t), ("student", name, s))]
                        rows = len(tokens)
                        total += sum(kl(p, q) for p, q in zip(*both, strict=True)) / (rows if by_text else 1)
                        count += heads * (1 if by_text else rows)
        return total, count

    return reference


def mean_heads(side: str, maps: np.ndarray) -> np.ndarray:
    return maps.mean(0, keepdims=True)


def group_heads(side: str, maps: np.ndarray) -> np.ndarray:
    return maps if side == "student" else np.stack([maps[:2].mean(0), maps[2:].mean(0)])
