"""`CachedTeacher`: reads the answers of a teacher from the store; no teacher in memory. It gives no hidden states, no attention.

Records are found by a hash of the tokens, so shuffling, filtering or another batch size never misalign them, and live and
stored teachers give the same loss.
"""

from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, ClassVar

import torch

from mangakd.core import ranks
from mangakd.core.locks import waiting_lock
from mangakd.core.outputs import Batch, Outputs
from mangakd.core.requires import Need
from mangakd.core.spec import ModelSpec
from mangakd.store.manifest import Manifest
from mangakd.store.reader import StoreReader
from mangakd.teachers.base import TeacherProvider, digest
from mangakd.teachers.concatenated import ConcatenatedTeacher, factors
from mangakd.teachers.ensemble import EnsembleTeacher, combined, normalised, of_validation, scale_of
from mangakd.teachers.fill import fill, manifest_of
from mangakd.teachers.options import TeacherContext, TeacherOptions
from mangakd.teachers.several import CONCATENATED, EnsembleOptions
from mangakd.teachers.standard import Scale


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
        self.scale: Scale | None = None
        self.factors: torch.Tensor | None = None  # of concatenated vectors, which are stored without weights

    @property
    def gives(self) -> Need:
        return Need(answer=True)

    @property
    def fingerprint(self) -> str:
        return self._reader.manifest.teacher

    def prepare(self, device: torch.device, need: Need) -> "CachedTeacher":
        return self

    def __call__(self, batch: Batch) -> Outputs:
        key, mask = batch["key"], batch["teacher"]["attention_mask"]
        # (B, M, C)
        records = torch.from_numpy(self._reader.lookup(key.cpu().numpy())).to(key.device, non_blocking=True)
        if self.members == 1:
            answer = records[:, 0] if self.factors is None else records[:, 0] * self.factors.to(key.device)
            return Outputs.of(self.spec.head.kind, answer, mask)
        return combined(records.transpose(0, 1), self.weights, self._combine, mask, self.spec.head, self.scale)


@dataclass(kw_only=True)
class Cached(EnsembleOptions):
    """teacher=cached. store: its folder; None: one in the cache, named by what it must hold.

    allow_mismatch: manifest fields that may differ.
    """

    reads_new_texts: ClassVar[bool] = False
    store: str | None = None
    allow_mismatch: Sequence[str] = ()

    def provider(self, context: TeacherContext) -> CachedTeacher:
        live = self.live(context)
        manifest = manifest_of(live, context.precision)
        folder = self.folder(manifest, context)
        if not self.allow_mismatch:
            lock = waiting_lock(
                context.cache / "locks" / folder.name, "filling the store"
            )  # a parallel sweep shares one
            with lock if ranks.is_first() else nullcontext():
                fill(folder, live, context)
        reader = StoreReader(folder, manifest, allow_mismatch=self.allow_mismatch)
        cached = CachedTeacher(reader, live.spec, normalised(None, reader.manifest.members), self.combine)
        if isinstance(live, ConcatenatedTeacher):
            cached.weights = normalised(self.weights, len(live.widths))
            cached.factors = factors(cached.weights, live.widths)
        else:
            cached.weights, cached.scale = of_validation(self, cached, context)
        if live.spec.head.kind == "score" and ranks.is_first() and not self.allow_mismatch:
            _note_scores(folder, cached, context)
        return cached

    def live(self, context: TeacherContext) -> TeacherProvider:
        """The teacher that fills the store."""
        members = self.providers(context)
        if self.combine == CONCATENATED:
            return ConcatenatedTeacher(members)
        return members[0] if len(members) == 1 else EnsembleTeacher(members)

    def folder(self, manifest: Manifest, context: TeacherContext) -> Path:
        return Path(self.store) if self.store else context.cache / "stores" / digest(manifest)


def _note_scores(folder: Path, cached: CachedTeacher, context: TeacherContext) -> None:
    """Write how large the stored scores are into the manifest: losses of scores depend on it, and no score says it of itself."""
    scores = (cached.scale or scale_of(cached, context)).numbers
    manifest = Manifest.load(folder)
    if manifest.scores != scores:
        replace(manifest, scores=scores).save(folder)


def stored(options: TeacherOptions) -> TeacherOptions:
    """The same teacher, its answers kept in the cache's store; one that has no model keeps them already."""
    if isinstance(options, Cached) or not options.models:
        return options
    shared: dict[str, Any] = {name: getattr(options, name) for name in ("path", "labels", "fit", "interaction")}
    if isinstance(options, EnsembleOptions):
        shared |= {name: getattr(options, name) for name in ("paths", "seeds", "weights", "combine")}
    else:
        shared["seeds"] = [member.seed for member in options.models]
    return Cached(**shared)
