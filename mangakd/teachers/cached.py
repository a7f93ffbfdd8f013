"""`CachedTeacher`: reads the answers of a teacher from the store; no teacher in memory. It gives no hidden states, no attention.

Records are found by a hash of the tokens, so shuffling, filtering or another batch size never misalign them, and live and
stored teachers give the same loss. Of a language model a store keeps what `stored_as` says (token_kinds.py): only `states` give
the live teacher's loss.
"""

import logging
from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any, ClassVar

import torch

from mangakd.core import ranks
from mangakd.core.errors import UserError, near
from mangakd.core.locks import waiting_lock
from mangakd.core.outputs import Batch, Outputs
from mangakd.core.requires import Need
from mangakd.core.spec import Kind, ModelSpec
from mangakd.core.token_logits import LmHead, TokenAnswer, TopK
from mangakd.store.codecs import DENSE, FLOATS, OF_TOKENS
from mangakd.store.manifest import Manifest
from mangakd.store.reader import StoreReader
from mangakd.teachers.base import TeacherProvider, digest
from mangakd.teachers.concatenated import ConcatenatedTeacher, factors
from mangakd.teachers.ensemble import EnsembleTeacher, combined, normalised, of_validation, scale_of
from mangakd.teachers.fill import Record, fill, manifest_of
from mangakd.teachers.lm_head_file import read_head
from mangakd.teachers.options import TeacherContext, TeacherOptions
from mangakd.teachers.several import CONCATENATED, EnsembleOptions
from mangakd.teachers.standard import Scale
from mangakd.teachers.token_kinds import ANSWERS, answer_of

log = logging.getLogger(__name__)
SAMPLE, MUCH = 64, 0.1  # sequences; share of the probability (benchmarks/results/stored_kinds.md)


class CachedTeacher(TeacherProvider):
    """reader: an open store. weights (M), combine: as for an ensemble; they are applied on reading.

    spec: of the model that filled it. Raises UserError when a batch holds a text that the store does not.
    """

    def __init__(
        self, reader: StoreReader, spec: ModelSpec, weights: torch.Tensor, combine: str = "probabilities"
    ) -> None:
        self._reader, self._device = reader, torch.device("cpu")
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
    def folder(self) -> Path:
        """Of the store."""
        return self._reader.folder

    @property
    def fingerprint(self) -> str:
        """That of the live teacher, where the store gives the same answers."""
        manifest = self._reader.manifest
        if not manifest.of_tokens:
            return manifest.teacher
        return digest(manifest.teacher, manifest.kind, manifest.size, manifest.temperature, manifest.dtype)

    @cached_property
    def _head(self) -> LmHead | None:
        """Beside states: read when it is first needed, on the device."""
        return read_head(self._reader.folder, self._device) if self._reader.manifest.kind == "states" else None

    def prepare(self, device: torch.device, need: Need) -> "CachedTeacher":
        if device != self._device:
            self._device = device
            vars(self).pop("_head", None)
        return self

    def __call__(self, batch: Batch) -> Outputs:
        key, mask = batch["key"], batch["teacher"]["attention_mask"]
        arrays = self._reader.lookup(key.cpu().numpy())
        if self._reader.manifest.of_tokens:
            return Outputs(None, mask, tokens=answer_of(arrays, self._reader.manifest, self._head, key.device))
        # (B, M, C)
        records = torch.from_numpy(arrays["logits"]).to(key.device, non_blocking=True)
        if self.members == 1:
            answer = records[:, 0] if self.factors is None else records[:, 0] * self.factors.to(key.device)
            return Outputs.of(self.spec.head.kind, answer, mask)
        return combined(records.transpose(0, 1), self.weights, self._combine, mask, self.spec.head, self.scale)


@dataclass(kw_only=True)
class Cached(EnsembleOptions):
    """teacher=cached. store: its folder; None: one in the cache, named by what it must hold.

    allow_mismatch: manifest fields that may differ. stored_dtype: float32 | float16; None: the kind's own.
    Of language models: stored_as: topk | draws | states (token_kinds.py); None: topk. k: tokens of topk. draws: tokens of draws.
    temperature: of topk and draws; one number.
    """

    reads_new_texts: ClassVar[bool] = False
    store: str | None = None
    allow_mismatch: Sequence[str] = ()
    stored_as: str | None = None
    stored_dtype: str | None = None
    k: int = 64
    draws: int = 50
    temperature: Any = 1.0

    def __post_init__(self) -> None:
        super().__post_init__()
        for name, choices in (("stored_as", (None, *OF_TOKENS)), ("stored_dtype", (None, *FLOATS))):
            value = getattr(self, name)
            if value not in choices:
                names = ", ".join(str(choice) for choice in choices if choice)
                raise UserError(f"teacher.{name}={value}; known: {names}{near(str(value), names.split(', '))}")
        for name in ("k", "draws"):
            if not isinstance(value := getattr(self, name), int) or value < 1:
                raise UserError(f"teacher.{name}={value} must be a whole number above 0.")

    def answer(self, spec: ModelSpec) -> TokenAnswer | None:
        record = self.record(spec)
        if record.kind == DENSE:
            return None
        return TokenAnswer(ANSWERS[record.kind], None if record.kind == "states" else record.temperature)

    def record(self, spec: ModelSpec) -> Record:
        """How the store keeps the answers of a teacher. Raises UserError for options that do not fit its head."""
        if spec.head.kind != "tokens":
            if self.stored_as is not None:
                raise UserError(
                    f"teacher.stored_as={self.stored_as} is for language models, and the teacher's head is {spec.head}. "
                    "Leave it out."
                )
            return Record(dtype=self.stored_dtype or "float32")
        kind, dtype = self.stored_as or "topk", self.stored_dtype or "float16"
        if kind == "states":
            return Record(kind, dtype, spec.hidden)
        if kind == "draws":
            return Record(kind, "float32", self.draws, self._one_temperature(kind))
        if self.k >= spec.head.outputs:
            raise UserError(
                f"teacher.k={self.k} must be less than the {spec.head.outputs} tokens of the teacher's vocabulary. To store all "
                "of its answer, set teacher.stored_as=states."
            )
        return Record(kind, dtype, self.k, self._one_temperature(kind))

    def _one_temperature(self, kind: str) -> float:
        t = self.temperature
        if isinstance(t, bool) or not isinstance(t, int | float) or not 0 < t < float("inf"):
            raise UserError(
                f"teacher.temperature={t}: stored_as={kind} holds the probabilities of one temperature. Set it (or "
                "distill.temperature, which it follows) to a number above 0, or set teacher.stored_as=states, which gives all."
            )
        return float(t)

    def provider(self, context: TeacherContext) -> CachedTeacher:
        live = self.live(context)
        manifest = self.manifest(live, context)
        folder = self.folder(manifest, context)
        if not self.allow_mismatch:
            lock = waiting_lock(
                context.cache / "locks" / folder.name, "filling the store"
            )  # a parallel sweep shares one
            with lock if ranks.is_first() else nullcontext():
                fill(folder, manifest, live, context)
        reader = StoreReader(folder, manifest, allow_mismatch=self.allow_mismatch)
        _note_scarce(reader.manifest)
        if reader.manifest.kind == "topk":
            _note_tail(reader, context)
        cached = CachedTeacher(reader, live.spec, normalised(None, reader.manifest.members), self.combine)
        if isinstance(live, ConcatenatedTeacher):
            cached.weights = normalised(self.weights, len(live.widths))
            cached.factors = factors(cached.weights, live.widths)
        else:
            cached.weights, cached.scale = of_validation(self, cached, context)
        if live.spec.head.kind == "score" and ranks.is_first() and not self.allow_mismatch:
            _note_scores(folder, cached, context)
        return cached

    def manifest(self, live: TeacherProvider, context: TeacherContext) -> Manifest:
        return manifest_of(live, context.precision, self.record(live.spec))

    def live(self, context: TeacherContext) -> TeacherProvider:
        """The teacher that fills the store."""
        members = self.providers(context)
        if self.combine == CONCATENATED:
            return ConcatenatedTeacher(members)
        return members[0] if len(members) == 1 else EnsembleTeacher(members)

    def folder(self, manifest: Manifest, context: TeacherContext) -> Path:
        return Path(self.store) if self.store else context.cache / "stores" / digest(manifest)


def _note_scarce(manifest: Manifest) -> None:
    """Say what the scores of a run will lack."""
    if manifest.kind == "draws" or (manifest.kind == "topk" and manifest.temperature != 1):
        log.warning(
            "scores will have no KL to the teacher: its store holds %s at T = %g. teacher.stored_as=states gives it, and topk at "
            "T = 1 a lower bound.", manifest.kind, manifest.temperature,
        )  # fmt: skip


def _note_tail(reader: StoreReader, context: TeacherContext) -> None:
    """Warn where the tokens beside the K best have much of the teacher's probability: of them the loss sees the sum alone."""
    split = context.splits["train"]
    keys = split.teacher.keys[split.sequences.units["targets"] > 0][:SAMPLE]
    answer = answer_of(reader.lookup(keys), reader.manifest, None, torch.device("cpu"))
    assert isinstance(answer, TopK)
    if (share := float(answer.tail.exp().mean())) > MUCH:
        log.warning(
            "the store holds %d tokens of each answer, and all others have %.0f%% of the teacher's probability at T = %g. The "
            "loss sees only their sum. Set teacher.stored_as=states (or draws), or distill.temperature=1.",
            reader.manifest.size, 100 * share, reader.manifest.temperature,
        )  # fmt: skip


def _note_scores(folder: Path, cached: CachedTeacher, context: TeacherContext) -> None:
    """Write how large the stored scores are into the manifest: losses of scores depend on it, and no score says it of itself."""
    scores = (cached.scale or scale_of(cached, context)).numbers
    manifest = Manifest.load(folder)
    if manifest.scores != scores:
        replace(manifest, scores=scores).save(folder)


def stored(options: TeacherOptions, kind: Kind) -> TeacherOptions:
    """The same teacher, its answers kept in the cache's store; one that has no model keeps them already.

    kind: of the head. Of language models the states are stored, which give the live teacher's loss.
    """
    if isinstance(options, Cached) or not options.models:
        return options
    names = ("path", "labels", "fit", "interaction", "calibrate", "smooth")
    shared: dict[str, Any] = {name: getattr(options, name) for name in names}
    if isinstance(options, EnsembleOptions):
        shared |= {name: getattr(options, name) for name in ("paths", "seeds", "weights", "combine")}
    else:
        shared["seeds"] = [member.seed for member in options.models]
    return Cached(**shared, stored_as="states" if kind == "tokens" else None)
