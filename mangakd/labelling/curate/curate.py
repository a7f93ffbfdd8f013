"""Rows of a file → a folder of rows that are good enough to train on, with a card, a manifest and the rows that were left out."""

import json
import logging
import platform
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from hashlib import sha256 as sha256_of
from pathlib import Path
from typing import Any

from mangakd import __version__
from mangakd.core.code_version import code_version
from mangakd.core.errors import UserError
from mangakd.core.locks import waiting_lock
from mangakd.data.file_parts import parts_of_all
from mangakd.data.notices import short
from mangakd.data.tables import existing
from mangakd.data.token_files import Progress
from mangakd.labelling.curate.card import card
from mangakd.labelling.curate.extras import versions
from mangakd.labelling.curate.filters.base import Filter
from mangakd.labelling.curate.filters.near_duplicates import NearDuplicates
from mangakd.labelling.curate.filters.signatures import FILE as SIGNATURES
from mangakd.labelling.curate.flow import JUDGE, Selection
from mangakd.labelling.curate.folder import MANIFEST, is_whole, write_folder
from mangakd.labelling.curate.judge import Judge
from mangakd.labelling.curate.label_sources import label_manifest
from mangakd.labelling.curate.parts import check_shares, parts_of, together
from mangakd.labelling.curate.source import Reading, Source
from mangakd.labelling.curate.tables import FORMATS, write_lines, write_rows
from mangakd.store.files import sha256, write_atomic

CARD, LEFT_OUT = "README.md", "left_out.jsonl"
EXAMPLES = 3  # of each filter in the card
log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Options:
    """filters: name → a filter, in the order in which they run. off: names of the others. shares: part → share of the rows.

    Raises UserError for an option outside its range.
    """

    reading: Reading
    filters: Mapping[str, Filter]
    off: Sequence[str]
    shares: Mapping[str, float]
    judge: Judge | None = None
    seed: int = 0
    format: str = "jsonl"

    def __post_init__(self) -> None:
        check_shares(self.shares)
        if self.format not in FORMATS:
            raise UserError(f"format={self.format} must be one of {', '.join(FORMATS)}.")

    @property
    def settings(self) -> dict[str, Any]:
        """What the rows depend on beside the data."""
        return {
            "reads": self.reading.task, "texts": list(self.reading.texts), "columns": dict(self.reading.names or {}),
            "several_labels": self.reading.several,
            "filters": {name: each.settings for name, each in self.filters.items()},
            "judge": None if self.judge is None else self.judge.settings,
            "split": dict(self.shares), "seed": self.seed, "format": self.format,
        }  # fmt: skip


def curate(path: str | None, out: Path, options: Options, cache: Path, progress: Progress) -> None:
    """Write the folder `out`. Raises UserError for rows or settings that do not fit, and where no row is left.

    A folder that the same rows and settings have made stays as it is. A second process with the same folder waits for the first.
    """
    digest = sha256(existing(path, "data.path"))
    lock = cache / "locks" / f"curate-{sha256_of(str(out.resolve()).encode()).hexdigest()[:16]}"
    with waiting_lock(lock, f"writing {out}"):
        if is_whole(out, digest, options.settings):
            print(f"{out} is there: the same rows and settings made it.")
            return
        source = Source(path, options.reading)
        selection = Selection(source, options.filters, options.judge)
        selection.run(progress)
        stays = selection.stays
        if not stays:
            raise UserError(f"no row of data.path={path} is left: {_counts(selection)}. Set a filter off or loosen it.")
        parts = _parts(selection, stays, options)
        content = _content(selection, parts, options, digest)
        write_folder(out, lambda folder: _fill(folder, selection, parts, content, options))
    for each in content["filters"]:
        if each["rows"]:
            log.info("%s: %d left out.", each["title"], each["rows"])
    names = ", ".join(f"{len(part)} {name}" for name, part in parts.items())
    print(f"{len(stays)} of {len(source)} rows stay ({names}): {out}")


def _parts(selection: Selection, stays: list[int], options: Options) -> dict[str, list[int]]:
    """Part → positions in the file."""
    keys = [selection.source.keys(i) for i in stays]
    parts = parts_of(keys, selection.classes(stays), options.shares, options.seed)
    return {name: [stays[place] for place in part] for name, part in parts.items()}


def _fill(
    folder: Path, selection: Selection, parts: Mapping[str, list[int]], content: dict[str, Any], options: Options
) -> None:
    files = {}
    for name, part in parts.items():
        file = content["parts"][name]["file"]
        files[file] = write_rows((selection.row(i) for i in part), folder / file)
    files[LEFT_OUT] = write_lines((_left_out(selection, i) for i in sorted(selection.left_out)), folder / LEFT_OUT)
    near = next((each for each in options.filters.values() if isinstance(each, NearDuplicates)), None)
    if near is not None and near.keep:
        files[SIGNATURES] = _write(folder / SIGNATURES, near.signatures().content())
    files[CARD] = _write(folder / CARD, card(content).encode())
    origin: dict[str, Any] = {
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "mangakd": __version__,
        "python": platform.python_version(),
    }
    digests = parts_of_all({digest: folder / name for name, digest in files.items()})
    origin |= {"versions": versions(), "code": code_version()}
    manifest = {**content, "files": files, "digests": digests, "made": origin}
    _write(folder / MANIFEST, (json.dumps(manifest, indent=2, ensure_ascii=False) + "\n").encode())


def _write(file: Path, content: bytes) -> str:
    write: Callable[[Any], object] = lambda stream: stream.write(content)  # noqa: E731
    return write_atomic(file, write)


def _left_out(selection: Selection, i: int) -> dict[str, Any]:
    name, detail = selection.left_out[i]
    record = selection.clean(i)
    return {"number": record.number, "reason": name, "detail": selection.detail(detail), "row": record.cells}


def _content(selection: Selection, parts: Mapping[str, list[int]], options: Options, digest: str) -> dict[str, Any]:
    """The manifest without dates and without hashes of files."""
    source, judge = selection.source, options.judge
    layout = source.layout
    return {
        "name": f"{source.file.stem}, curated", "task": layout.name, "category": layout.category,
        "data": {"file": source.file.name, "sha256": digest, "rows": len(source), "unit": source.unit},
        "label": label_manifest(source.file, digest), "settings": options.settings, "off": list(options.off),
        "filters": [_filter(selection, name, each.title) for name, each in options.filters.items()]
        + ([_filter(selection, JUDGE, "rows that the judge leaves out")] if judge else []),
        "personal_data": _personal(selection), "judge": None if judge is None else _judge(selection),
        "parts": {name: _part(selection, name, part, options.format) for name, part in parts.items()},
    }  # fmt: skip


def _filter(selection: Selection, name: str, title: str) -> dict[str, Any]:
    places = [i for i, (reason, _) in sorted(selection.left_out.items()) if reason == name]
    examples = []
    for i in places[:EXAMPLES]:
        record = selection.clean(i)
        detail = selection.detail(selection.left_out[i][1])
        examples.append({"row": record.number, "detail": detail, "text": short(record.answer or record.prompt)})
    return {"name": name, "title": title, "rows": len(places), "examples": examples}


def _personal(selection: Selection) -> dict[str, Any] | None:
    personal = selection.personal
    if personal is None:
        return None
    kinds = {kind: {"values": personal.values[kind], "rows": personal.rows[kind]} for kind in sorted(personal.values)}
    return {"action": personal.action, "kinds": kinds}


def _judge(selection: Selection) -> dict[str, Any]:
    verdict = selection.verdict
    return {"stays": verdict.stays, "falls": verdict.falls, "agreement": verdict.agreement}


def _part(selection: Selection, name: str, part: Sequence[int], ending: str) -> dict[str, Any]:
    groups = together([selection.source.keys(i) for i in part])
    return {"file": f"{name}.{ending}", "rows": len(part), "groups": len({id(group) for group in groups.values()})}


def _counts(selection: Selection) -> str:
    reasons = [reason for reason, _ in selection.left_out.values()]
    return ", ".join(f"{name} left out {reasons.count(name)}" for name in dict.fromkeys(reasons))
