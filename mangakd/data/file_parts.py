"""Digests of the parts of a file, so that a changed file can say which part changed: a line, a row, a tensor or a key.

The sha256 of the file says whether it changed; these digests, of 8 hex digits each, say where.
"""

import hashlib
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from difflib import SequenceMatcher
from itertools import takewhile
from pathlib import Path
from typing import Any

import yaml

from mangakd.core.errors import UserError
from mangakd.data.tables import read_table

LINES = (".csv", ".tsv", ".jsonl", ".ndjson", ".txt", ".md", ".j2", ".jinja", ".jinja2")
TABLES = (".parquet", ".arrow", ".feather")
KEYS = (".json", ".yaml", ".yml")
MOST = {".safetensors": 2 << 30, **dict.fromkeys(KEYS, 1 << 15)}  # bytes of a file; larger ones are hashed whole only
MOST_OF_ROWS = 100 << 20
DIGITS, SHOWN = 8, 5
MOST_APART = 5000  # parts between the first and the last change, of which a comparison is quick


@dataclass(frozen=True)
class Parts:
    """unit: what a part is, such as `line`. digests: of the parts in their order. names: of them; () for parts with numbers."""

    unit: str
    digests: tuple[str, ...]
    names: tuple[str, ...] = ()

    def entry(self) -> dict[str, Any]:
        """As plain values for a file of JSON."""
        return {"unit": self.unit, "digests": "".join(self.digests), **({"names": self.names} if self.names else {})}

    @classmethod
    def read(cls, entry: Mapping[str, Any]) -> "Parts":
        text = entry["digests"]
        digests = tuple(text[i : i + DIGITS] for i in range(0, len(text), DIGITS))
        return cls(entry["unit"], digests, tuple(entry.get("names", ())))

    def changes(self, now: "Parts") -> str:
        """What differs in `now`, such as `lines 3, 17 changed`; empty where nothing does. Parts that are gone are numbered as
        before, parts that are new as now."""
        if self.names or now.names:
            return self._changes_of_names(now)
        before, after = self.digests, now.digests
        if len(before) == len(after):
            return self._words(
                {"changed": [i for i, pair in enumerate(zip(before, after, strict=True)) if len({*pair}) > 1]}
            )
        start = _alike(before, after)
        end = _alike(before[start:][::-1], after[start:][::-1])
        if max(len(before), len(after)) - start - end > MOST_APART:
            return f"{len(before)} {self.unit}s before, {len(after)} now; they differ from {self.unit} {start + 1} on"
        places: dict[str, list[int]] = {"changed": [], "gone": [], "new": []}
        middles = before[start : len(before) - end], after[start : len(after) - end]
        for kind, i, to_i, j, to_j in SequenceMatcher(None, *middles, autojunk=False).get_opcodes():
            if kind != "equal":
                both = min(to_i - i, to_j - j)
                places["changed"] += range(start + i, start + i + both)
                places["gone"] += range(start + i + both, start + to_i)
                places["new"] += range(start + j + both, start + to_j)
        return self._words(places)

    def _words(self, places: Mapping[str, Sequence[int]]) -> str:
        return "; ".join(
            f"{self.unit}{'s' if len(each) > 1 else ''} {_some([str(i + 1) for i in each])} {word}"
            for word, each in places.items()
            if each
        )

    def _changes_of_names(self, now: "Parts") -> str:
        before, after = dict(zip(self.names, self.digests, strict=True)), dict(zip(now.names, now.digests, strict=True))
        groups = {
            "changed": [name for name in before if name in after and before[name] != after[name]],
            "gone": [name for name in before if name not in after],
            "new": [name for name in after if name not in before],
        }
        return "; ".join(f"{_some(names)} {word}" for word, names in groups.items() if names)


def parts_of(file: Path) -> Parts | None:
    """The parts of a file by its ending; None for other files, for large ones, and for those that cannot be read."""
    ending = file.suffix.lower()
    read = _READERS.get(ending)
    if read is None or file.stat().st_size > MOST.get(ending, MOST_OF_ROWS):
        return None
    try:
        return read(file)
    except (ValueError, KeyError, OSError, yaml.YAMLError, UserError):
        return None


def parts_of_all(files: Mapping[str, Path]) -> dict[str, dict[str, Any]]:
    """The entries of those files that have parts. files: sha256 → file. The old sha256 of a changed file finds its entry."""
    parts = {digest: parts_of(file) for digest, file in files.items()}
    return {digest: each.entry() for digest, each in parts.items() if each is not None}


def _lines(file: Path) -> Parts:
    with file.open("rb") as stream:
        return Parts("line", tuple(_digest(line.rstrip(b"\r\n")) for line in stream))


def _rows(file: Path) -> Parts:
    table = read_table(file, "file")
    columns = [table.column(name) for name in table.names]
    return Parts("row", tuple(_digest(repr(row).encode()) for row in zip(*columns, strict=True)))


def _keys(file: Path) -> Parts | None:
    """A list of objects has rows."""
    text = file.read_text(encoding="utf-8")
    content = json.loads(text) if file.suffix.lower() == ".json" else yaml.safe_load(text)
    if isinstance(content, list):
        return Parts("row", tuple(_digest(json.dumps(row).encode()) for row in content))
    if not isinstance(content, dict):
        return None
    values = dict(_flat(content))
    return Parts("key", tuple(_digest(repr(value).encode()) for value in values.values()), tuple(values))


def _flat(values: Mapping[Any, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    for name, value in values.items():
        if isinstance(value, dict) and value:
            yield from _flat(value, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}", value


def _tensors(file: Path) -> Parts:
    """Of the layout of safetensors: the length of the header, the header as JSON, the bytes of the tensors."""
    with file.open("rb") as stream:
        size = int.from_bytes(stream.read(8), "little")
        if size > file.stat().st_size:
            raise ValueError("no header")
        header = json.loads(stream.read(size))
        tensors = {name: entry for name, entry in sorted(header.items()) if name != "__metadata__"}
        digests = []
        for entry in tensors.values():
            begin, end = entry["data_offsets"]
            stream.seek(8 + size + begin)
            digests.append(_digest(f"{entry['dtype']}{entry['shape']}".encode() + stream.read(end - begin)))
    return Parts("tensor", tuple(digests), tuple(tensors))


def _digest(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()[:DIGITS]


def _alike(one: Sequence[str], other: Sequence[str]) -> int:
    """How many parts are equal from the beginning on."""
    return sum(1 for _ in takewhile(lambda pair: pair[0] == pair[1], zip(one, other, strict=False)))


def _some(names: Sequence[str]) -> str:
    first = ", ".join(names[:SHOWN])
    return f"{first} and {len(names) - SHOWN} more" if len(names) > SHOWN else first


_READERS: Mapping[str, Callable[[Path], Parts | None]] = {
    **dict.fromkeys(LINES, _lines), **dict.fromkeys(TABLES, _rows), **dict.fromkeys(KEYS, _keys), ".safetensors": _tensors,
}  # fmt: skip
