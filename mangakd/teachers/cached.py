"""`CachedTeacher`: reads what a teacher said from the store; no teacher in memory. Gives logits only.

Records are found by a hash of the tokens, so shuffling, filtering or another batch size never misalign them, and live and
stored teachers give the same loss.
"""

import logging
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from mangakd.core.locks import waiting_lock
from mangakd.core.outputs import Batch, Outputs
from mangakd.core.requires import Need
from mangakd.core.spec import ModelSpec, numbered
from mangakd.data.encoded import EncodedSplit
from mangakd.data.gather import gather
from mangakd.data.loader import EvalBatches
from mangakd.store.manifest import Manifest
from mangakd.store.reader import StoreReader
from mangakd.store.writer import StoreWriter
from mangakd.teachers.base import TeacherProvider, digest
from mangakd.teachers.ensemble import EnsembleTeacher, combined, member_logits, normalised, validation_weights
from mangakd.teachers.local import LocalTeacher
from mangakd.teachers.options import EnsembleOptions, TeacherContext, TeacherOptions

log = logging.getLogger(__name__)


class CachedTeacher(TeacherProvider):
    """reader: an open store. weights (M), combine: as for an ensemble; they are applied on reading.

    spec: of the model that filled it. Raises UserError when a batch holds a text that the store does not.
    """

    def __init__(
        self, reader: StoreReader, spec: ModelSpec, weights: torch.Tensor, combine: str = "probabilities"
    ) -> None:
        self._reader = reader
        self.members = reader.manifest.members
        self.spec = replace(spec, name=f"stored {spec.name}")
        self.weights = weights
        self._combine = combine

    @property
    def gives(self) -> Need:
        return Need(logits=True)

    @property
    def fingerprint(self) -> str:
        return self._reader.manifest.teacher

    def prepare(self, device: torch.device, need: Need) -> "CachedTeacher":
        return self

    def __call__(self, batch: Batch) -> Outputs:
        key, mask = batch["key"], batch["teacher"]["attention_mask"]
        found = torch.from_numpy(self._reader.lookup(key.cpu().numpy())).to(key.device, non_blocking=True)  # (B, M, C)
        if self.members == 1:
            return Outputs(found[:, 0], mask)
        return combined(found.transpose(0, 1), self.weights, self._combine, mask, self.spec.head)


@dataclass(kw_only=True)
class Cached(EnsembleOptions):
    """teacher=cached. store: its folder; None: one in the cache, named by what it must hold.

    allow_mismatch: manifest fields that may differ.
    """

    store: str | None = None
    allow_mismatch: Sequence[str] = ()

    def provider(self, context: TeacherContext) -> CachedTeacher:
        live = self.live(context)
        manifest = manifest_of(live, context.precision)
        folder = self.folder(manifest, context)
        if not self.allow_mismatch:
            with waiting_lock(
                context.cache / "locks" / folder.name, "filling the store"
            ):  # a parallel sweep shares one
                fill(folder, live, context)
        reader = StoreReader(folder, manifest, allow_mismatch=self.allow_mismatch)
        members = reader.manifest.members
        cached = CachedTeacher(reader, live.spec, normalised(None, members), self.combine)
        if isinstance(self.weights, str):
            cached.weights = validation_weights(cached, context.splits["validation"], context)
        else:
            cached.weights = normalised(self.weights, members)
        return cached

    def live(self, context: TeacherContext) -> TeacherProvider:
        """The teacher that fills the store."""
        members = [LocalTeacher(context.load(member), context.head) for member in self.models]
        return members[0] if len(members) == 1 else EnsembleTeacher(members)

    def folder(self, manifest: Manifest, context: TeacherContext) -> Path:
        return Path(self.store) if self.store else context.cache / "stores" / digest(manifest)


def stored(options: TeacherOptions) -> Cached:
    """The same teacher, its answers kept in the cache's store."""
    if isinstance(options, Cached):
        return options
    shared: dict[str, Any] = {"path": options.path, "labels": options.labels, "fit": options.fit}
    if isinstance(options, EnsembleOptions):
        shared |= {name: getattr(options, name) for name in ("paths", "seeds", "weights", "combine")}
    else:
        shared["seeds"] = [member.seed for member in options.models]
    return Cached(**shared)


def manifest_of(teacher: TeacherProvider, precision: str) -> Manifest:
    """What a store of this teacher's outputs declares."""
    return Manifest(
        teacher=teacher.fingerprint,
        tokenizer=teacher.spec.vocabulary,
        labels=teacher.spec.head.names or numbered(teacher.spec.head.outputs),
        members=teacher.members,
        precision=precision,
    )


def fill(folder: Path, teacher: TeacherProvider, context: TeacherContext) -> int:
    """Write the teacher's logits for every text that the store lacks; returns how many were written.

    The batches are the same each time, so a capture that was killed and resumed ends byte-identical.
    """
    written = 0
    with StoreWriter(folder, manifest_of(teacher, context.precision)) as writer:
        for name, split in context.splits.items():
            plan = writer.plan(split.teacher.keys)
            if not plan.examples:
                continue
            log.info("store %s of %s: %s", folder, name, plan)
            teacher.prepare(context.device, Need(logits=True))  # here, as nothing reads the models of a full store
            with context.progress(f"teacher on {name}", plan.examples) as advance:
                written += writer.capture(split.teacher.keys, _answers(teacher, split, context, advance))
    return written


def _answers(teacher: TeacherProvider, split: EncodedSplit, context: TeacherContext, advance):  # type: ignore[no-untyped-def]
    def compute(positions: np.ndarray) -> np.ndarray:
        batches = EvalBatches(split.sequences, context.batch_size, positions)
        return gather(
            lambda batch: member_logits(teacher(batch)), batches, context.device, advance, context.precision
        ).numpy()

    return compute


def verify(
    folder: Path, teacher: TeacherProvider, split: EncodedSplit, context: TeacherContext, rows: int = 256
) -> float:
    """Re-hash the shards and ask the live teacher again about some rows: max |Δ log p| between store and teacher.

    For a head of scores it is max |Δ score|.
    """
    reader = StoreReader(folder, manifest_of(teacher, context.precision))
    positions = np.linspace(0, len(split.teacher) - 1, min(rows, len(split.teacher)), dtype=np.int64)
    teacher.prepare(context.device, Need(logits=True))
    live = torch.from_numpy(_answers(teacher, split, context, None)(positions))
    stored = torch.from_numpy(reader.lookup(split.teacher.keys[positions]))
    head = teacher.spec.head
    if head.several:  # one Bernoulli per label: log p of on and of off
        live, stored = (torch.nn.functional.logsigmoid(torch.stack([z, -z])) for z in (live, stored))
    elif head.kind == "labels":
        live, stored = live.log_softmax(-1), stored.log_softmax(-1)
    return float((live - stored).abs().max())
