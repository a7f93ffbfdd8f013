"""What made a file of training data: `mangakd label` and `mangakd curate`, back to the prompts, the template and the ledger."""

import re
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from mangakd.core.errors import UserError
from mangakd.runs.audit.finding import Finding, State
from mangakd.runs.audit.ledger import audit_ledger
from mangakd.runs.audit.look import Look
from mangakd.runs.origins import BY, CURATED, PARTS, label_file, read_object, writer_of, writers_of
from mangakd.runs.settings import flat

Content = Mapping[str, Any]
SHOWN = 5  # rows in a message
_SHA256 = re.compile(r"[0-9a-f]{64}")
_OF_ROWS = (
    "provider",
    "model",
    "weights",
    "tokenizer",
    "template",
    "dtype",
)  # of the teacher, in `written_by` of each row


def audit_file(file: Path, look: Look) -> Finding:
    """A file that label wrote, or one of a curated folder. Raises UserError for another file."""
    content = read_object(label_file(file))
    if content is None and (file.parent / CURATED).is_file():
        return audit_curated(file.parent, look)
    if content is None and not writers_of(file):
        raise UserError(
            f"folder={file} has no {label_file(file).name} beside it, and no row of it says {BY}: nothing is recorded of it."
        )
    return Finding(str(file), *_out(file, content or {}, look), parts=tuple(origin(file, {}, look)))


def _out(file: Path, content: Content, look: Look) -> tuple[State, str]:
    entry = content.get("out") or {}
    if "sha256" not in entry:
        return State.UNRECORDED, f"there is no {label_file(file).name}"
    finding = look.at(file.parent, content.get("parts")).file({**entry, "path": None, "relative": file.name})
    return finding.state, finding.words


def origin(file: Path | None, record: Content, look: Look) -> Iterator[Finding]:
    """What made a file. file: None where it is missing. record: the file as provenance.json has it, {} outside of a run."""
    recorded, here = record.get("label"), None if file is None else read_object(label_file(file))
    before, now = flat(recorded or {}), flat({name: value for name, value in (here or {}).items() if name != PARTS})
    if before and now and (keys := [key for key in before | now if before.get(key) != now.get(key)]):
        yield Finding(f"{file}.label.json", State.CHANGED, f"not as the run read it: {', '.join(keys)}")
    if file is not None:
        yield from _rows(file, here or recorded)
    if content := here or recorded:
        yield from _label(content, look.at(look.folder if file is None else file.parent, content.get("parts")), file)
    elif record.get(BY) or (file is not None and writers_of(file)):
        yield Finding(
            "label", State.UNRECORDED, f"{file}.label.json, which names prompts, template and ledger, is not there"
        )


def _label(content: Content, look: Look, file: Path | None) -> Iterator[Finding]:
    teacher, form = content.get("teacher") or {}, content.get("form") or {}
    yield Finding("teacher", State.NOTE, _named({**teacher, "date": content.get("date")}))
    yield Finding("form", State.NOTE, _named({**form, **(content.get("sampling") or {}), "seed": content.get("seed")}))
    for name, title in (("data", "prompts"), ("template", "template")):
        if entry := content.get(name):
            yield look.file(entry, f"{title} {entry.get('path')}")
    if ledger := content.get("ledger"):
        yield audit_ledger(ledger, look, file)


def _rows(file: Path, content: Content | None) -> Iterator[Finding]:
    """Each row says who wrote it. Nothing for a file without such rows."""
    writers = writers_of(file)
    if not writers:
        return
    expected = {name: value for name, value in ((content or {}).get("teacher") or {}).items() if name in _OF_ROWS}
    first = next(iter(writers.values()))
    wrong: dict[str, list[int]] = {}
    for number, by in _writers(file):
        against = expected if content else {name: first.get(name) for name in _OF_ROWS if name in first}
        for name, value in against.items():
            if by.get(name) != value:
                wrong.setdefault(f"{name} {by.get(name)}, not {value}", []).append(number)
    if wrong:
        words = "; ".join(f"{_lines(numbers)}: {what}" for what, numbers in wrong.items())
        yield Finding(f"{BY} of the rows", State.CHANGED, words)
    else:
        yield Finding(f"{BY} of the rows", State.VERIFIED, "all rows name this teacher" if content else _named(first))


def _writers(file: Path) -> Iterator[tuple[int, dict[str, Any]]]:
    with file.open("rb") as stream:
        for number, line in enumerate(stream, 1):
            if line.strip():
                yield number, writer_of(line) or {}


def audit_curated(folder: Path, look: Look) -> Finding:
    """A folder that curate wrote: its files, and the files that it read."""
    name, look = f"curated {folder}", look.at(folder)
    content = read_object(folder / CURATED)
    if content is None:
        return Finding(name, State.CHANGED, f"{CURATED} is no JSON object")
    parts = []
    for title, record in _claims(content):
        finding, place = (
            look.file(record, f"{title} {record.get('path') or record.get('relative')}"),
            look.place(record),
        )
        made_by = place is not None and place.parent != folder.absolute()
        label = {"label": content.get("label")} if isinstance(content.get("label"), dict) else {}
        parts.append(replace(finding, parts=tuple(origin(place, label, look))) if made_by else finding)
    words = _named({key: value for key, value in content.items() if isinstance(value, str | int | float)})
    return Finding(name, State.NOTE if parts else State.UNRECORDED, words, tuple(parts))


def _claims(content: Content, title: str = "") -> Iterator[tuple[str, dict[str, Any]]]:
    """The files of which a manifest says a hash: `{path, sha256}`, `{name: {sha256}}` or `{name: sha256}`."""
    for name, value in content.items():
        if name == "label":  # the manifest of the input: its paths are seen from there
            continue
        if isinstance(value, dict) and isinstance(value.get("sha256"), str):
            yield title or name, {**value, "path": value.get("path", name)}
        elif isinstance(value, str) and _SHA256.fullmatch(value) and "." in name:
            yield title, {"path": name, "sha256": value}
        elif isinstance(value, dict):
            yield from _claims(value, name)
        elif isinstance(value, list):
            for each in value:
                if isinstance(each, dict):
                    yield from _claims({name: each}, name)


def _named(values: Content) -> str:
    return ", ".join(f"{key} {value}" for key, value in values.items() if value not in (None, "", {}, []))


def _lines(numbers: list[int]) -> str:
    shown = ", ".join(map(str, numbers[:SHOWN]))
    more = f" and {len(numbers) - SHOWN} more" if len(numbers) > SHOWN else ""
    return f"line{'s' if len(numbers) > 1 else ''} {shown}{more}"
