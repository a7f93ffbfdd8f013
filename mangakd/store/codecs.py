"""What a store holds for each sequence. Other kinds of teacher output are other codecs, and nothing else in the folder changes.

    dense     a record for each sequence: every member's logit for every output of the head
    topk      a record for each target token: the K most probable tokens, and the mass of all others
    draws     the same: N tokens drawn from the teacher's distribution
    states    the same: the final hidden state, from which the head of the teacher gives every logit

Beside topk and draws lies what the teacher's own scores need: log p at T = 1 of the target token, and of the most probable one.

Source: mangakd design, the store of teacher outputs.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from mangakd.core.errors import UserError

# Little-endian on every machine, so that the hash of a shard does not depend on who wrote it.
FLOATS = {"float32": "<f4", "float16": "<f2"}


class Field(NamedTuple):
    """dtype: on disk. shape: of one record. may_be_zero: whether -inf is a value: the logarithm of a probability of 0."""

    dtype: str
    shape: tuple[int, ...]
    may_be_zero: bool = False


DENSE, LOG_PROB = "dense", Field("<f4", (), True)


@dataclass(frozen=True)
class Codec:
    """fields: name → what each record has of it."""

    fields: Mapping[str, Field]

    @property
    def record(self) -> np.dtype:
        """The fields without padding in between."""
        return np.dtype([(name, field.dtype, field.shape) for name, field in self.fields.items()])

    def encode(self, answers: Mapping[str, np.ndarray]) -> np.ndarray:
        """Records (R) from name → (R, …). Raises UserError for another shape."""
        first, shapes = next(iter(answers.values())), {name: field.shape for name, field in self.fields.items()}
        for name, shape in shapes.items():
            if answers[name].shape != (len(first), *shape):
                raise UserError(
                    f"the teacher gave {name} of shape {answers[name].shape}; the store's manifest asks for "
                    f"{(len(first), *shape)} (records, then {shape} of each). Check the teacher and `teacher.store`."
                )
        records = np.empty(len(first), self.record)
        with np.errstate(over="ignore"):  # a number beyond float16 becomes inf, and `flaws` names it
            for name in shapes:
                records[name] = answers[name]
        return records

    def decode(self, records: np.ndarray) -> dict[str, np.ndarray]:
        """name → (R, …): float32, or int64 for ids."""
        return {
            name: records[name].astype(np.int64 if np.dtype(field.dtype).kind == "u" else np.float32)
            for name, field in self.fields.items()
        }

    def flaws(self, records: np.ndarray) -> np.ndarray:
        """Which records (R) hold a NaN or an infinity that is no value: stored once, it would poison every run."""
        flaws = np.zeros(len(records), bool)
        for name, field in self.fields.items():
            values = records[name].reshape(len(records), -1)
            wrong = np.isnan(values) | np.isposinf(values) if field.may_be_zero else ~np.isfinite(values)
            flaws |= wrong.any(axis=1)
        return flaws


class Sizes(NamedTuple):
    """members M, outputs C (or V) of the head, dtype of floats, size: K, N or D of the kinds for tokens."""

    members: int
    outputs: int
    dtype: str
    size: int

    @property
    def float(self) -> str:
        return FLOATS[self.dtype]

    @property
    def ids(self) -> str:
        """The smallest dtype that holds every id of the vocabulary."""
        return "<u2" if self.outputs <= 2**16 else "<u4"


def _dense(sizes: Sizes) -> Codec:
    return Codec({"logits": Field(sizes.float, (sizes.members, sizes.outputs))})


def _topk(sizes: Sizes) -> Codec:
    log_probs = Field(sizes.float, (sizes.size,), True)
    return Codec({"ids": _ids(sizes), "log_probs": log_probs, "tail": LOG_PROB, **_known(sizes)})


def _draws(sizes: Sizes) -> Codec:
    return Codec({"ids": _ids(sizes), **_known(sizes)})


def _ids(sizes: Sizes) -> Field:
    return Field(sizes.ids, (sizes.size,))


def _known(sizes: Sizes) -> dict[str, Field]:
    return {"target": LOG_PROB, "best": Field(sizes.ids, ()), "best_log_prob": LOG_PROB}


def _states(sizes: Sizes) -> Codec:
    return Codec({"states": Field(sizes.float, (sizes.size,))})


OF_TOKENS: dict[str, Callable[[Sizes], Codec]] = {"topk": _topk, "draws": _draws, "states": _states}
CODECS = {DENSE: _dense, **OF_TOKENS}
