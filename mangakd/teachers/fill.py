"""Fills a store with a teacher's answers: all ranks compute, the first rank writes.

The bytes of a store don't depend on how many ranks filled it. The last bits of an answer depend on the batch that it was
computed in, so batches are fixed first: the writer cuts the missing rows into shards, each shard is cut into batches of similar
length, and rank r of W computes the batches r, r + W, …. The answers go to the first rank, which puts them into the order of
the rows. A fill that was killed therefore goes on with any number of ranks. (Devices must round alike: a GPU of another kind,
or another number of threads in each process, may change last bits.)

One writer holds the lock and the journal, so a killed rank costs at most one shard, no rank can outlive the lock, and only the
first rank needs to see the folder while it is filled. The time of a fill is that of the teacher's forward passes: what travels
are records as they lie on disk, a shard (at most 128 MB) at a time.
"""

import logging
from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial, reduce
from operator import add
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch

from mangakd.core import ranks
from mangakd.core.outputs import Batch
from mangakd.core.requires import Need
from mangakd.core.token_logits import FromStates, LmHead
from mangakd.data.encoded import EncodedSplit
from mangakd.data.gather import Advance, autocast, to_device
from mangakd.data.loader import EvalBatches
from mangakd.store.codecs import DENSE
from mangakd.store.manifest import Manifest
from mangakd.store.shards import in_order
from mangakd.store.writer import StoreWriter
from mangakd.teachers.base import TeacherProvider
from mangakd.teachers.ensemble import member_logits
from mangakd.teachers.lm_head_file import head_file, save_head
from mangakd.teachers.options import TeacherContext
from mangakd.teachers.token_kinds import fields_of

log = logging.getLogger(__name__)


class Record(NamedTuple):
    """How a store keeps an answer: entries of its manifest (store/manifest.py)."""

    kind: str = DENSE
    dtype: str = "float32"
    size: int = 0
    temperature: float = 1.0


DENSE_RECORD = Record()


def manifest_of(teacher: TeacherProvider, precision: str, record: Record = DENSE_RECORD) -> Manifest:
    """What a store of this teacher's outputs declares."""
    return Manifest(
        teacher=teacher.fingerprint,
        tokenizer=teacher.spec.vocabulary,
        head=teacher.spec.head,
        members=teacher.members,
        precision=precision,
        **record._asdict(),
    )


def counts_of(split: EncodedSplit, manifest: Manifest) -> np.ndarray:
    """(S) records of each sequence of a split."""
    return split.sequences.units["targets" if manifest.of_tokens else "sequences"]


def fill(folder: Path, manifest: Manifest, teacher: TeacherProvider, context: TeacherContext) -> int:
    """Write what `manifest` asks for of every text that the store lacks; returns how many texts were written.

    All ranks call it together. It returns when the store is full.
    """
    this = Fill(manifest, teacher, context)
    if ranks.is_first():
        return ranks.share(this.write(folder))
    message: Any = ranks.share(None)
    while isinstance(message, tuple):  # until the first rank shares what it returns
        this.answer(*message)
        message = ranks.share(None)
    return int(message)


@dataclass(frozen=True)
class Fill:
    """One rank's part of a fill."""

    manifest: Manifest
    teacher: TeacherProvider
    context: TeacherContext

    def write(self, folder: Path) -> int:
        """The first rank's part."""
        count = 0
        with StoreWriter(folder, self.manifest) as writer:
            if self.manifest.kind == "states" and head_file(folder) is None:
                save_head(folder, self._head())
            self._say(folder, writer)
            for name, split in self.context.splits.items():
                counts = counts_of(split, self.manifest)
                if (size := writer.plan(split.teacher.keys, counts).examples) == 0:
                    continue
                with self.context.progress(f"teacher on {name}", size) as advance:
                    compute = partial(self._together, name, advance)
                    count += writer.capture(split.teacher.keys, compute, counts=counts)
        return count

    def _say(self, folder: Path, writer: StoreWriter) -> None:
        """Log what will be written of each split, and of all of them."""
        splits = self.context.splits.items()
        plans = {name: writer.plan(split.teacher.keys, counts_of(split, self.manifest)) for name, split in splits}
        plans = {f"of {name}": plan for name, plan in plans.items() if plan.examples}
        if len(plans) > 1:
            plans["in all"] = reduce(add, plans.values())
        processes = f", by {ranks.world()} processes" if ranks.world() > 1 else ""
        for what, plan in plans.items():
            log.info("store %s %s: %s%s", folder, what, plan, processes)

    def answer(self, name: str, positions: np.ndarray, advance: Advance | None = None) -> list[np.ndarray]:
        """This rank's share of the records; on the first rank the shares of all."""
        own = positions[self._shares(name, positions)[ranks.rank()]]
        return ranks.collect(self.records(name, own, advance))

    def records(self, name: str, positions: np.ndarray, advance: Advance | None = None) -> np.ndarray:
        """Of rows `positions` (n) of a split, from this process. The teacher is read for the first row, and not for none."""
        if not len(positions):
            return np.empty(0, self.manifest.codec.record)
        self.teacher.prepare(self.context.device, Need(answer=True))
        split = self.context.splits[name]
        batches = EvalBatches(split.sequences, self.context.batch_size, positions)
        parts = []
        for batch in batches:
            parts.append(self.manifest.codec.encode(self._taken(batch)))
            if advance is not None:
                advance(len(batch["key"]))
        return in_order(np.concatenate(parts), counts_of(split, self.manifest)[positions], batches.order)

    def _together(self, name: str, advance: Advance, positions: np.ndarray) -> np.ndarray:
        """Records of rows `positions` (n) of a split, computed by all ranks."""
        ranks.share((name, positions))
        shares = self._shares(name, positions)
        parts = self.answer(name, positions, advance)
        advance(len(positions) - len(shares[0]))
        counts = counts_of(self.context.splits[name], self.manifest)[positions]
        return in_order(np.concatenate(parts), counts, np.concatenate(shares))

    def _shares(self, name: str, positions: np.ndarray) -> list[np.ndarray]:
        """For each rank, its places in `positions`: whole batches, sorted by length and dealt in turn."""
        size = self.context.batch_size
        order = EvalBatches(self.context.splits[name].sequences, size, positions).order
        turn = np.arange(len(order)) // size % ranks.world()
        return [order[turn == rank] for rank in range(ranks.world())]

    def _taken(self, batch: Batch) -> Mapping[str, np.ndarray]:
        """What the store keeps of the teacher's answer to a batch."""
        device, precision = self.context.device, self.context.precision
        with torch.no_grad(), autocast(device, precision):
            batch = to_device(batch, device)
            outputs = self.teacher(batch)
            if self.manifest.of_tokens:
                assert isinstance(outputs.tokens, FromStates)
                return fields_of(outputs.tokens, batch, self.manifest)
            return {"logits": member_logits(outputs).float().cpu().numpy()}

    def _head(self) -> LmHead:
        """The teacher's, with the dtype that its products have in this precision."""
        (encoder,) = self.teacher.prepare(self.context.device, Need(answer=True)).encoders
        with autocast(self.context.device, self.context.precision):
            return encoder.lm_head
