"""Fills a store with a teacher's answers: all ranks compute, the first rank writes.

The bytes of a store don't depend on how many ranks filled it. The last bits of an answer depend on the batch that it was
computed in, so batches are fixed first: the writer cuts the missing rows into shards, each shard is cut into batches of similar
length, and rank r of W computes the batches r, r + W, …. The answers go to the first rank, which puts them into the order of
the rows. A fill that was killed therefore goes on with any number of ranks. (Devices must round alike: a GPU of another kind,
or another number of threads in each process, may change last bits.)

One writer holds the lock and the journal, so a killed rank costs at most one shard, no rank can outlive the lock, and only the
first rank needs to see the folder while it is filled. The time of a fill is that of the teacher's forward passes: the answers
that travel are a few hundred bytes a row.
"""

import logging
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch

from mangakd.core import ranks
from mangakd.core.requires import Need
from mangakd.data.gather import Advance, gather
from mangakd.data.loader import EvalBatches
from mangakd.store.manifest import Manifest
from mangakd.store.reader import StoreReader
from mangakd.store.writer import StoreWriter
from mangakd.teachers.base import TeacherProvider
from mangakd.teachers.ensemble import member_logits
from mangakd.teachers.options import TeacherContext

log = logging.getLogger(__name__)


def manifest_of(teacher: TeacherProvider, precision: str) -> Manifest:
    """What a store of this teacher's outputs declares."""
    return Manifest(
        teacher=teacher.fingerprint,
        tokenizer=teacher.spec.vocabulary,
        head=teacher.spec.head,
        members=teacher.members,
        precision=precision,
    )


def fill(folder: Path, teacher: TeacherProvider, context: TeacherContext) -> int:
    """Write the teacher's logits for every text that the store lacks; returns how many were written.

    All ranks call it together. It returns when the store is full.
    """
    if ranks.is_first():
        return ranks.share(_write(folder, teacher, context))
    message: Any = ranks.share(None)
    while isinstance(message, tuple):  # until the first rank shares what it returns
        _answer(teacher, context, *message)
        message = ranks.share(None)
    return int(message)


def _write(folder: Path, teacher: TeacherProvider, context: TeacherContext) -> int:
    """The first rank's part."""
    count = 0
    with StoreWriter(folder, manifest_of(teacher, context.precision)) as writer:
        for name, split in context.splits.items():
            plan = writer.plan(split.teacher.keys)
            if not plan.examples:
                continue
            processes = f", by {ranks.world()} processes" if ranks.world() > 1 else ""
            log.info("store %s of %s: %s%s", folder, name, plan, processes)
            with context.progress(f"teacher on {name}", plan.examples) as advance:
                count += writer.capture(split.teacher.keys, partial(_together, teacher, context, name, advance))
    return count


def _together(
    teacher: TeacherProvider, context: TeacherContext, name: str, advance: Advance, positions: np.ndarray
) -> np.ndarray:
    """Logits (n, M, C) of rows `positions` (n) of a split, computed by all ranks."""
    ranks.share((name, positions))
    shares = _shares(context, name, positions)
    parts = _answer(teacher, context, name, positions, advance)
    advance(len(positions) - len(shares[0]))
    logits = np.empty((len(positions), *parts[0].shape[1:]), parts[0].dtype)
    for rows, part in zip(shares, parts, strict=True):
        logits[rows] = part
    return logits


def _answer(
    teacher: TeacherProvider, context: TeacherContext, name: str, positions: np.ndarray, advance: Advance | None = None
) -> list[np.ndarray]:
    """This rank's share of the logits; on the first rank the shares of all."""
    own = positions[_shares(context, name, positions)[ranks.rank()]]
    return ranks.collect(_logits(teacher, context, name, own, advance))


def _shares(context: TeacherContext, name: str, positions: np.ndarray) -> list[np.ndarray]:
    """For each rank, its places in `positions`: whole batches, sorted by length and dealt in turn."""
    order = EvalBatches(context.splits[name].sequences, context.batch_size, positions).order
    turn = np.arange(len(order)) // context.batch_size % ranks.world()
    return [order[turn == rank] for rank in range(ranks.world())]


def _logits(
    teacher: TeacherProvider, context: TeacherContext, name: str, positions: np.ndarray, advance: Advance | None = None
) -> np.ndarray:
    """Logits (n, M, C) of rows `positions` (n), from this process. The teacher is read for the first row, and not for none."""
    if not len(positions):
        return np.empty((0, teacher.members, teacher.spec.head.outputs), np.float32)
    teacher.prepare(context.device, Need(answer=True))
    batches = EvalBatches(context.splits[name].sequences, context.batch_size, positions)
    answer = gather(lambda batch: member_logits(teacher(batch)), batches, context.device, advance, context.precision)
    return answer.numpy()


def verify(folder: Path, teacher: TeacherProvider, name: str, context: TeacherContext, rows: int = 256) -> float:
    """Hash the shards again and ask the live teacher about some rows of a split: max |Δ log p| between store and teacher.

    For a head of scores it is max |Δ score|.
    """
    split = context.splits[name]
    reader = StoreReader(folder, manifest_of(teacher, context.precision))
    positions = np.linspace(0, len(split.teacher) - 1, min(rows, len(split.teacher)), dtype=np.int64)
    live = torch.from_numpy(_logits(teacher, context, name, positions))
    records = torch.from_numpy(reader.lookup(split.teacher.keys[positions]))
    head = teacher.spec.head
    if head.several:  # one Bernoulli per label: log p of on and of off
        live, records = (torch.nn.functional.logsigmoid(torch.stack([z, -z])) for z in (live, records))
    elif head.kind == "labels":
        live, records = live.log_softmax(-1), records.log_softmax(-1)
    return float((live - records).abs().max())
