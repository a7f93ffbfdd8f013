"""One row per loss class and options: what the contract tests in test_losses.py are run for.

A row's `reference` is an independent float64 numpy implementation of the formula, written from the papers and not from
the code under test: plain loops over examples, pairs and heads, slicing the valid tokens out instead of masking. It
gives the sum and the count; its finite differences are the reference gradient. To add a loss, add a row.
Shapes: B batch, T tokens, C classes, D hidden size, H heads, M ensemble members.
"""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from mangakd.core.spec import ModelSpec, Problem
from mangakd.losses.attention import AttentionLoss
from mangakd.losses.base import LossCallback
from mangakd.losses.hard_label import HardLabelLoss
from mangakd.losses.hidden import HiddenLoss
from mangakd.losses.output import OutputLoss
from mangakd.losses.relation import RelationLoss

Arrays = Mapping[str, Any]
"""`student.logits`, `teacher.hidden.2`, `student.query.1`, `labels`, `tokens` (per example, the valid positions),
`state.<parameter>` of the loss."""
Reference = Callable[[Arrays], tuple[float, int]]

LABELS = ("a", "b", "c", "d", "e")
STUDENT = ModelSpec("student", layers=2, hidden=6, heads=2, labels=LABELS, vocabulary="v1")
TEACHER = ModelSpec("teacher", layers=3, hidden=8, heads=4, labels=LABELS, vocabulary="v1")  # 3 is no multiple of 2


def like(spec: ModelSpec, **changes: Any) -> ModelSpec:
    return ModelSpec(**{**vars(spec), **changes})


@dataclass(frozen=True)
class Row:
    """A loss with options, the reference it must equal, and the two models it is bound to."""

    id: str
    cls: type[LossCallback]
    reference: Reference
    options: dict[str, Any] = field(default_factory=dict)
    problem: Problem = "single_label"
    student: ModelSpec = STUDENT
    teacher: ModelSpec | None = TEACHER
    members: int = 0  # > 0: an ensemble of this many
    eager: bool = False  # taps that hold probabilities only


# --- references: probabilities ---------------------------------------------------------------------------------------


def softmax(x: np.ndarray) -> np.ndarray:
    e = np.exp(x - x.max(-1, keepdims=True))
    return e / e.sum(-1, keepdims=True)


def sigmoid(x: np.ndarray) -> np.ndarray:
    return 1 / (1 + np.exp(-x))


def kl(p: np.ndarray, q: np.ndarray) -> float:
    return float(sum(a * math.log(a / b) for a, b in zip(np.ravel(p), np.ravel(q), strict=True) if a > 0))


def teacher_probs(x: Arrays, t: float, squash: Callable[[np.ndarray], np.ndarray]) -> np.ndarray:
    if "teacher.members" not in x:
        return squash(x["teacher.logits"] / t)
    return sum(w * squash(z / t) for w, z in zip(x["teacher.weights"], x["teacher.members"], strict=True))


def output(name: str, t: float = 4.0, *, beta: float = 0.5, alpha: float = 1.0) -> Reference:
    def dkd(p: np.ndarray, q: np.ndarray, y: int) -> float:
        pair = kl(np.array([p[y], 1 - p[y]]), np.array([q[y], 1 - q[y]]))
        return alpha * pair + beta * kl(np.delete(p, y) / (1 - p[y]), np.delete(q, y) / (1 - q[y]))

    def jsd(p: np.ndarray, q: np.ndarray) -> float:
        mix = beta * p + (1 - beta) * q
        return beta * kl(p, mix) + (1 - beta) * kl(q, mix)

    forms = {"forward_kl": kl, "reverse_kl": lambda p, q: kl(q, p), "jsd": jsd}

    def single(x: Arrays) -> tuple[float, int]:
        p, q = teacher_probs(x, t, softmax), softmax(x["student.logits"] / t)
        if name == "dkd":
            rows = [b for b, y in enumerate(x["labels"]) if y != -100]
            return t * t * sum(dkd(p[b], q[b], x["labels"][b]) for b in rows), len(rows)
        return t * t * sum(forms[name](p[b], q[b]) for b in range(len(p))), len(p)

    return single


def output_mse(x: Arrays) -> tuple[float, int]:
    difference = x["student.logits"] - x["teacher.logits"]
    return float((difference**2).sum() / difference.shape[1]), len(difference)


def output_mse_multi(x: Arrays) -> tuple[float, int]:
    difference = x["student.logits"] - x["teacher.logits"]
    return float((difference**2).sum()), difference.size


def output_multi(name: str, t: float = 4.0) -> Reference:
    def bernoulli(x: Arrays) -> tuple[float, int]:
        p, q = teacher_probs(x, t, sigmoid), sigmoid(x["student.logits"] / t)
        total = 0.0
        for a, b in zip(p.ravel(), q.ravel(), strict=True):
            on_p, on_q = np.array([a, 1 - a]), np.array([b, 1 - b])
            mix = (on_p + on_q) / 2
            total += {
                "forward_kl": kl(on_p, on_q),
                "reverse_kl": kl(on_q, on_p),
                "jsd": (kl(on_p, mix) + kl(on_q, mix)) / 2,
            }[name]
        return t * t * total, p.size

    return bernoulli


def hard(smoothing: float = 0.0) -> Reference:
    def cross_entropy(x: Arrays) -> tuple[float, int]:
        rows = [b for b, y in enumerate(x["labels"]) if y != -100]
        logs = np.log(softmax(x["student.logits"]))
        total = sum((1 - smoothing) * logs[b][x["labels"][b]] + smoothing * logs[b].mean() for b in rows)
        return -float(total), len(rows)

    return cross_entropy


def hard_multi(smoothing: float = 0.0) -> Reference:
    def binary(x: Arrays) -> tuple[float, int]:
        total, count = 0.0, 0
        for q, y in zip(sigmoid(x["student.logits"]).ravel(), x["labels"].ravel(), strict=True):
            if y != -100:
                soft = y * (1 - smoothing) + smoothing / 2
                total, count = total - soft * math.log(q) - (1 - soft) * math.log(1 - q), count + 1
        return total, count

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


def relation(pairs: list[tuple[int, int]], names: tuple[str, ...], heads: int) -> Reference:
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
                        total += sum(kl(p, q) for p, q in zip(*both, strict=True))
                        count += heads * len(tokens)
        return total, count

    return reference


def mean_heads(side: str, maps: np.ndarray) -> np.ndarray:
    return maps.mean(0, keepdims=True)


def group_heads(side: str, maps: np.ndarray) -> np.ndarray:
    return maps if side == "student" else np.stack([maps[:2].mean(0), maps[2:].mean(0)])


# --- the table -------------------------------------------------------------------------------------------------------

UNIFORM = [(0, 0), (1, 2), (2, 3)]
QKV = ("query", "key", "value")
SAME = like(TEACHER, hidden=6)
FOUR = like(STUDENT, heads=4, hidden=8)
MULTI: dict[str, Any] = {"problem": "multi_label"}

ROWS = [
    Row("hard", HardLabelLoss, hard(), teacher=None),
    Row("hard_smooth", HardLabelLoss, hard(0.1), {"label_smoothing": 0.1}),
    Row("hard_multi", HardLabelLoss, hard_multi(), **MULTI),
    Row("hard_multi_smooth", HardLabelLoss, hard_multi(0.1), {"label_smoothing": 0.1}, teacher=None, **MULTI),
    Row("forward_kl", OutputLoss, output("forward_kl")),
    Row("forward_kl_T1", OutputLoss, output("forward_kl", 1.0), {"temperature": 1.0}),
    Row("forward_kl_ensemble", OutputLoss, output("forward_kl", 3.0), {"temperature": 3.0}, members=3),
    Row("reverse_kl", OutputLoss, output("reverse_kl"), {"divergence": "reverse_kl"}),
    Row("jsd", OutputLoss, output("jsd", beta=0.3), {"divergence": "jsd", "jsd_beta": 0.3}),
    Row("dkd", OutputLoss, output("dkd", beta=8.0), {"divergence": "dkd"}),
    Row(
        "dkd_ensemble",
        OutputLoss,
        output("dkd", 2.0, alpha=0.5, beta=3.0),
        {"divergence": "dkd", "temperature": 2.0, "dkd_alpha": 0.5, "dkd_beta": 3.0},
        members=2,
    ),
    Row("output_mse", OutputLoss, output_mse, {"divergence": "mse"}),
    *(
        Row(f"{name}_multi", OutputLoss, output_multi(name), {"divergence": name}, **MULTI)
        for name in ("forward_kl", "jsd")
    ),
    Row("reverse_kl_multi", OutputLoss, output_multi("reverse_kl"), {"divergence": "reverse_kl"}, members=2, **MULTI),
    Row("output_mse_multi", OutputLoss, output_mse_multi, {"divergence": "mse"}, **MULTI),
    Row("hidden", HiddenLoss, hidden(UNIFORM)),
    Row("hidden_norm", HiddenLoss, hidden([(2, 1)], norm=True), {"layer_map": [[2, 1]], "layer_norm": True}),
    Row("hidden_plain", HiddenLoss, hidden(UNIFORM), {"projection": False}, teacher=SAME),
    Row("hidden_auto", HiddenLoss, hidden([(1, 2), (2, 3)]), {"layer_map": "skip_embedding"}, teacher=SAME),
    Row("hidden_cosine", HiddenLoss, hidden([(1, 2), (2, 3)], "cosine"), {"layer_map": "last", "compare": "cosine"}),
    Row("attention_scores", AttentionLoss, attention(UNIFORM[1:], "scores"), student=FOUR),
    Row("attention_kl", AttentionLoss, attention(UNIFORM[1:], "kl"), {"compare": "kl"}, student=FOUR),
    Row(
        "attention_mse", AttentionLoss, attention([(2, 3)], "mse"), {"compare": "mse", "layer_map": "top"}, student=FOUR
    ),
    *(
        Row(
            f"attention_{compare}_{heads}",
            AttentionLoss,
            attention(UNIFORM[1:], compare, mean_heads if heads == "mean" else group_heads),
            {"compare": compare, "heads": heads},
        )
        for compare in ("scores", "kl", "mse")
        for heads in ("mean", "group")
    ),
    Row(
        "attention_kl_eager",
        AttentionLoss,
        attention([(2, 3)], "kl", group_heads),
        {"compare": "kl", "heads": "group", "layer_map": "top"},
        eager=True,
    ),
    Row("relation", RelationLoss, relation([(2, 3)], QKV, 2)),
    Row(
        "relation_value",
        RelationLoss,
        relation([(1, 1), (2, 3)], ("value",), 1),
        {"relations": ["value"], "relation_heads": 1, "layer_map": {1: 1, 2: 3}},
    ),
]
