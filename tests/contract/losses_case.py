"""A row of losses_table.py as a bound loss with random inputs. Shapes: B batch, T tokens."""

import zlib
from typing import Any

import numpy as np
import torch
from losses_reference import VALIDATION
from losses_reference_tokens import K
from losses_table import Row, like
from torch import Tensor

from mangakd.core.outputs import AttentionTap, Outputs
from mangakd.core.requires import Need
from mangakd.core.spec import Head, ModelSpec
from mangakd.core.token_logits import Draws, FromStates, LmHead, TokenLogits, TopK
from mangakd.losses.base import LossCallback, LossOutput

B, T = 3, 4
SIZES, GRADES = [4, 1, 3], [[2, 0, 0, 1], [1, np.nan, np.nan, np.nan], [0, 1, 0, np.nan]]  # documents of each query
# Of each row: anchor, positive, negative. Equal keys are equal texts.
TEXTS, KEYS = [3, 1, 2], [[1, 2, 3], [4, 0, 0], [5, 2, 0]]
PAIRS, SCORES = [1, -100, 1], [0.9, np.nan, 0.2]
# No loss learns from them.
INPUTS = ("labels", "grades", "score", "keys", "sizes", "next", "teacher.ids", "teacher.weights")
SHARED = ("teacher.weights", "teacher.head", "student.head", "student.bias")  # no rows of a batch
DRAWS = 5
MASK = torch.tensor([[1, 1, 1, 1], [0, 1, 1, 0], [1, 1, 1, 0]])  # full, padded on the left, padded on the right


class Case:
    """A bound loss with random inputs: exactly what it requires, so that an undeclared need is a KeyError."""

    def __init__(self, row: Row) -> None:
        self.row = row
        self.rng = np.random.default_rng(zlib.crc32(row.id.encode()))
        torch.manual_seed(0)
        self.loss = bound(row)
        self.arrays: dict[str, np.ndarray] = {}
        for side, spec in (("student", row.student), ("teacher", row.teacher)):
            if spec is not None:
                self._fill(side, headed(row, side), getattr(self.loss.requires, side))
        self._label()
        if row.groups or row.widths:
            self.arrays["sizes"] = np.array(SIZES if row.groups else TEXTS)
        if row.widths:
            self.arrays["keys"] = np.array(KEYS)

    def _fill(self, side: str, spec: Any, need: Need) -> None:
        def put(name: str, *shape: int) -> None:
            self.arrays[f"{side}.{name}"] = self.rng.normal(size=shape)

        if need.answer and self.row.tokens:
            self._fill_tokens(side, spec)
        elif need.answer and self.row.widths:
            put("vector", B, max(TEXTS), spec.head.outputs)
        elif need.answer:
            put("logits", B, len(GRADES[0]) if self.row.groups else self.row.head.outputs)
            self.arrays[f"{side}.logits"] *= 3
        if need.answer and side == "teacher" and self.row.members:
            put("members", self.row.members, B, self.row.head.outputs)
            self.arrays["teacher.weights"] = np.arange(1, self.row.members + 1) / np.arange(self.row.members + 1).sum()
        for layer in need.hidden:
            put(f"hidden.{layer}", B, T, spec.hidden)
        for layer in need.attention:
            for name in ("query", "key", "value"):
                put(f"{name}.{layer}", B, spec.heads, T, spec.hidden // spec.heads)
            if self.row.eager:
                raw = np.exp(self.rng.normal(size=(B, spec.heads, T, T)))
                self.arrays[f"{side}.probs.{layer}"] = raw / raw.sum(-1, keepdims=True)

    def _fill_tokens(self, side: str, spec: ModelSpec) -> None:
        vocabulary = spec.head.outputs
        if side == "teacher" and self.row.tokens == "draws":
            self.arrays["teacher.ids"] = self.rng.integers(0, vocabulary, size=(B, T, DRAWS))
            return
        self.arrays[f"{side}.states"] = self.rng.normal(size=(B, T, spec.hidden))
        self.arrays[f"{side}.head"] = self.rng.normal(size=(vocabulary, spec.hidden))
        if side == "student":
            self.arrays["student.bias"] = self.rng.normal(size=vocabulary)
            self.arrays["next"] = self.rng.integers(0, vocabulary, size=(B, T))

    def _label(self) -> None:
        if not self.loss.requires.labels:
            return
        if self.row.groups:
            self.arrays["grades"] = np.array(GRADES)
            return
        if self.row.widths:
            self.arrays |= {"score": np.array(SCORES)} if self.row.scored else {"labels": np.array(PAIRS)}
            return
        single = not self.row.head.several
        labels = np.array([3, -100, 0]) if single else self.rng.integers(0, 2, size=(B, 5)).astype(float)
        if not single:
            labels[1, 2] = -100
        self.arrays["labels"] = labels

    @property
    def learned(self) -> list[str]:
        """The arrays that the student's gradient is checked for."""
        wanted = ("student.probs",) if self.row.eager else ("student.",)
        return [name for name in self.arrays if name.startswith(wanted)]

    def tensors(self, dtype: torch.dtype = torch.float32) -> dict[str, Tensor]:
        """Leaves with gradients, the teacher's too: a loss must not send any there."""
        kinds = {"labels": torch.int64 if not self.row.head.several else torch.float32}
        kinds |= {"grades": torch.float32, "score": torch.float32, "sizes": torch.int64, "keys": torch.int64}
        kinds |= {"next": torch.int64, "teacher.ids": torch.int64}
        made = {name: torch.tensor(value, dtype=kinds.get(name, dtype)) for name, value in self.arrays.items()}
        return {name: t.requires_grad_(name not in INPUTS) for name, t in made.items()}

    def __call__(self, tensors: dict[str, Tensor], mask: Tensor = MASK) -> LossOutput:
        return self.loss(*self.inputs(tensors, mask))

    def inputs(self, tensors: dict[str, Tensor], mask: Tensor = MASK) -> tuple[Outputs, Outputs | None, dict[str, Any]]:
        teacher = self._outputs("teacher", tensors, mask) if self.row.teacher else None
        return self._outputs("student", tensors, mask), teacher, self.batch(tensors, mask)

    def batch(self, tensors: dict[str, Tensor], mask: Tensor = MASK) -> dict[str, Tensor]:
        """What the loader says of the rows."""
        batch = {name: tensors[name] for name in ("labels", "grades", "score") if name in tensors}
        if self.row.widths:
            batch["key"] = tensors["keys"][documents(tensors["keys"], tensors["sizes"])]
        if "sizes" in tensors:
            batch["first"] = torch.nn.functional.pad(tensors["sizes"].cumsum(0), (1, 0))
        if "next" in tensors:
            batch["next"] = tensors["next"][:, 1:][targets(mask)]
        return batch

    def counts(self, tensors: dict[str, Tensor], mask: Tensor) -> dict[str, int]:
        """Unit of counting → how many of it the batch holds."""
        lengths = mask.sum(-1)
        held = {
            "targets": int(targets(mask).sum()),
            "rows": B,
            "tokens": int(lengths.sum()),
            "cells": int((lengths**2).sum()),
        }
        if "labels" in tensors:
            held["labels"] = int((tensors["labels"] != -100).sum())
        if self.row.widths:
            held["sequences"] = int(tensors["sizes"].sum())
            held |= {"labels": int((~unlabelled_rows(tensors)).sum())} if self.row.scored else {}
        if self.row.groups:
            held |= {unit: int(self.counted(unit).sum()) for unit in ("labels", "groups", "ordered")}
        return held

    def counted(self, unit: str) -> np.ndarray:
        """(B) bool: the queries that a ranking loss learns from."""
        graded = [np.array(grades[:size]) for grades, size in zip(GRADES, SIZES, strict=True)]
        wanted = {
            "rows": lambda g: True, "labels": lambda g: not np.isnan(g).any(),
            "groups": lambda g: len(g) > 1, "ordered": lambda g: len(set(g)) > 1,
        }  # fmt: skip
        return np.array([wanted[unit](g) for g in graded])

    def _outputs(self, side: str, tensors: dict[str, Tensor], mask: Tensor) -> Outputs:
        parts = {name.removeprefix(f"{side}."): t for name, t in tensors.items() if name.startswith(f"{side}.")}
        layers = sorted({int(name.split(".")[1]) for name in parts if name.startswith("query")})
        logits = parts.get("logits", torch.zeros(len(mask), 1))
        if self.row.groups:
            logits = logits[documents(logits, tensors["sizes"])][:, None]
        if self.row.tokens:
            return Outputs(None, mask, tokens=self._tokens(side, parts, targets(mask)))
        if self.row.widths:
            empty = torch.zeros(len(mask), max(TEXTS), 1)  # of a side that the loss does not read
            vector = parts.get("vector", empty)[documents(tensors["keys"], tensors["sizes"])]
            return Outputs.of("vector", vector, mask)
        return Outputs(
            logits=logits,
            mask=mask,
            hidden={int(name.split(".")[1]): t for name, t in parts.items() if name.startswith("hidden")},
            attention={layer: self._tap(parts, layer) for layer in layers},
            members=parts.get("members"),
            weights=parts.get("weights"),
        )

    def _tokens(self, side: str, parts: dict[str, Tensor], chosen: Tensor) -> TokenLogits | None:
        if "ids" in parts:
            return Draws(parts["ids"][:, :-1][chosen])
        if "states" not in parts:
            return None
        exact = FromStates(parts["states"][:, :-1][chosen], LmHead(parts["head"], parts.get("bias")))
        if side == "student" or self.row.tokens == "states":
            return exact
        t = self.row.options.get("temperature", 1.0)
        log_p = torch.log_softmax(exact.head.logits(exact.states) / t, -1)
        best, ids = log_p.topk(K)
        rest = log_p.scatter(1, ids, -torch.inf)
        return TopK(ids, best, rest.logsumexp(-1), t)

    def _tap(self, parts: dict[str, Tensor], layer: int) -> AttentionTap:
        if self.row.eager:
            return AttentionTap(probs=parts[f"probs.{layer}"])
        query, key, value = (parts[f"{name}.{layer}"] for name in ("query", "key", "value"))
        return AttentionTap(query, key, value, scale=query.shape[-1] ** -0.5)

    def reference_arrays(self) -> dict[str, Any]:
        state = {f"state.{name}": value.double().numpy().copy() for name, value in self.loss.state_dict().items()}
        tokens = [np.flatnonzero(row) for row in MASK.numpy()]
        whole = [name for name in INPUTS[:-1] if name in self.arrays]
        # From fp32, so that the difference measured is the arithmetic's and not the inputs'.
        rounded = {
            name: value.astype(np.float32).astype(float) for name, value in self.arrays.items() if name not in whole
        }
        return {**rounded, **state, **{name: self.arrays[name] for name in whole}, "tokens": tokens}


def bound(row: Row) -> LossCallback:
    loss = row.cls(**row.options)
    loss.bind(headed(row, "student"), headed(row, "teacher") if row.teacher else None)
    loss.calibrate(torch.tensor(VALIDATION, dtype=torch.float32))
    return loss


def headed(row: Row, side: str) -> ModelSpec:
    """The row's student or teacher with the row's head."""
    head = Head("vector", row.widths[side == "teacher"]) if row.widths else row.head
    return like(getattr(row, side), head=head)


def unlabelled_rows(tensors: dict[str, Tensor]) -> Tensor:
    """(B) bool: rows without a positive or a score."""
    return tensors["labels"] == -100 if "labels" in tensors else tensors["score"].isnan()


def targets(mask: Tensor) -> Tensor:
    """(B, T - 1) bool: positions whose next token is learnt."""
    return (mask[:, 1:] & mask[:, :-1]).bool()


def batch_axis(name: str) -> int:
    return 1 if name == "teacher.members" else 0


def grads(tensors: dict[str, Tensor], names: list[str]) -> dict[str, Tensor]:
    return {name: torch.zeros_like(tensors[name]) if (g := tensors[name].grad) is None else g for name in names}


def documents(table: Tensor, sizes: Tensor) -> Tensor:
    """(B, G) bool: where a document is."""
    return torch.arange(table.shape[1]) < sizes[:, None]
