"""What a store was filled with. A reader compares it before it trusts a single number.

Soft targets of another teacher, tokenizer or label order train without any error and give a worse student, so every
field is compared; going on regardless is possible, explicit and logged. A store of another format is refused.
Source: mangakd design, the store of teacher outputs.
"""

import json
import logging
from collections.abc import Collection
from dataclasses import asdict, dataclass, field, fields, replace
from itertools import zip_longest
from pathlib import Path

from mangakd.core.errors import UserError, near
from mangakd.core.invocation import command
from mangakd.core.spec import Head
from mangakd.store.codecs import CODECS, DENSE, FLOATS, Codec, Sizes
from mangakd.store.files import write_atomic
from mangakd.store.shards import INDEX

MANIFEST_FILE = "manifest.json"
FORMAT = 3  # 1 named the labels alone, not the head; 2 had one record for each sequence
REFILL = f"{command('cache_teacher')} <the overrides of this run>"

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Manifest:
    """Who filled a store and how its records lie on disk.

    teacher: digest of the weights (of all members). tokenizer: digest of its content. head: what the teacher answers with, its
    names in the order of the logits. members: M. kind: a codec. dtype: of the stored numbers. precision: of the forward that gave
    them, as in `hardware.precision`. size: of one record of tokens, which is K of topk, N of draws, D of states. temperature: of
    the probabilities in topk and draws. format: version of the layout on disk. scores: (mean, standard deviation) of each
    member's scores on the validation rows of the last run that read them. calibration: the temperature of
    `teacher.calibrate` that the last run with this option fitted; the stored numbers are those before it. Both are for people, no
    reader compares them.
    Raises UserError for a kind or dtype that does not exist, and for a kind that does not fit the head.
    """

    teacher: str
    tokenizer: str
    head: Head
    members: int = 1
    kind: str = DENSE
    dtype: str = "float32"
    precision: str = "32-true"
    size: int = 0
    temperature: float = 1.0
    format: int = FORMAT
    scores: tuple[tuple[float, float], ...] = field(default=(), repr=False, compare=False)
    calibration: float | None = field(default=None, repr=False, compare=False)

    def __post_init__(self) -> None:
        for name, choices in (("kind", CODECS), ("dtype", FLOATS)):
            value = getattr(self, name)
            if value not in choices:
                raise UserError(
                    f"a store of {name} {value!r} does not exist; known: {', '.join(choices)}{near(value, choices)}"
                )
        if self.members < 1 or self.head.outputs < 1:
            raise UserError(
                f"a store needs members ≥ 1 and outputs ≥ 1; found {self.members} and {self.head.outputs} outputs."
            )
        if self.of_tokens != (self.head.kind == "tokens") or self.of_tokens != (self.size > 0):
            raise UserError(f"a store of kind {self.kind} and size {self.size} cannot hold answers of {self.head}.")

    @property
    def of_tokens(self) -> bool:
        """Whether a sequence has a record for each target token, and not one alone."""
        return self.kind != DENSE

    @property
    def codec(self) -> Codec:
        return CODECS[self.kind](Sizes(self.members, self.head.outputs, self.dtype, self.size))

    @property
    def record_bytes(self) -> int:
        return self.codec.record.itemsize

    @property
    def bytes_each(self) -> str:
        """For messages: bytes on disk of an example, or of a target token."""
        size, of = (
            (self.record_bytes, "target token") if self.of_tokens else (self.record_bytes + INDEX.itemsize, "row")
        )
        return f"{size:,} bytes a {of}"

    def save(self, folder: Path) -> None:
        """Write `manifest.json` atomically."""
        text = json.dumps(asdict(self), indent=2, ensure_ascii=False) + "\n"
        write_atomic(folder / MANIFEST_FILE, lambda file: file.write(text.encode()))

    @classmethod
    def load(cls, folder: Path) -> "Manifest":
        """Read `manifest.json`. Raises UserError for a missing store, another format version or a damaged file."""
        path = folder / MANIFEST_FILE
        if not path.exists():
            raise UserError(f"there is no store of teacher outputs in {folder} (no {MANIFEST_FILE}). Fill it: {REFILL}")
        try:
            content = json.loads(path.read_text(encoding="utf-8"))
            version = content["format"]
            if version == FORMAT:
                scores = tuple((float(mean), float(spread)) for mean, spread in content.get("scores", ()))
                return cls(**{**content, "head": Head.read(content["head"]), "scores": scores})
        except (ValueError, TypeError, KeyError) as error:
            raise UserError(
                f"{path} cannot be read ({error}). Delete the folder and fill it again: {REFILL}"
            ) from error
        raise UserError(
            f"{path} has format {version}, this version of mangakd reads format {FORMAT}. Use another folder with "
            f"`teacher.store`, or delete this one and fill it again: {REFILL}"
        )

    def compare(self, expected: "Manifest", folder: Path, allow: Collection[str] = ()) -> None:
        """Check that the store in `folder`, described by self, is what this run expects; all differences at once.

        allow: fields that may differ (`teacher.allow_mismatch`), each logged as a warning. Raises UserError otherwise.
        """
        names = [field.name for field in fields(self) if field.compare]
        for name in allow:
            if name not in names:
                raise UserError(
                    f"teacher.allow_mismatch names {name!r}, which is no field of a store; "
                    f"known: {', '.join(names)}{near(name, names)}"
                )
        different = {name: self._difference(expected, name) for name in names}
        different = {name: words for name, words in different.items() if words}
        for name in set(different) & set(allow):
            log.warning("store %s: %s; used anyway because of teacher.allow_mismatch", folder, different[name])
        refused = [name for name in different if name not in allow]
        if refused:
            raise UserError(
                f"the store {folder} was filled with something else: {'; '.join(different[name] for name in refused)}. "
                f"Use another folder with `teacher.store`, or delete this one and fill it again: {REFILL}; "
                f"or use it as it is with `teacher.allow_mismatch=[{','.join(refused)}]`."
            )

    def _difference(self, expected: "Manifest", name: str) -> str:
        own, theirs = getattr(self, name), getattr(expected, name)
        if own == theirs:
            return ""
        if name != "head" or replace(own, names=()) != replace(theirs, names=()):
            show = str if name == "head" else repr
            return f"{name} is {show(own)} in the store, {show(theirs)} expected"
        at, (first, other) = next((i, p) for i, p in enumerate(zip_longest(own.names, theirs.names)) if p[0] != p[1])
        return f"head: output {at} is {first!r} in the store, {other!r} expected"
