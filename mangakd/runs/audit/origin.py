"""What made a file of training data: `mangakd label` and `mangakd curate`, back to the prompts, the template and the ledger."""

from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from mangakd.core.errors import UserError
from mangakd.runs.audit.finding import Finding, State, lines
from mangakd.runs.audit.ledger import audit_ledger
from mangakd.runs.audit.look import Look
from mangakd.runs.origins import BY, CURATED, DIGESTS, label_file, read_object, writer_of, writers_of
from mangakd.runs.settings import flat

Content = Mapping[str, Any]


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
    finding = look.at(file.parent, content.get(DIGESTS)).file({**entry, "path": None, "relative": file.name})
    return finding.state, finding.words


def origin(file: Path | None, record: Content, look: Look) -> Iterator[Finding]:
    """What made a file. file: None where it is missing. record: the file as provenance.json has it, {} outside of a run."""
    recorded, here = record.get("label"), None if file is None else read_object(label_file(file))
    before, now = flat(recorded or {}), flat({name: value for name, value in (here or {}).items() if name != DIGESTS})
    if before and now and (keys := [key for key in before | now if before.get(key) != now.get(key)]):
        yield Finding(f"{file}.label.json", State.CHANGED, f"not as the run read it: {', '.join(keys)}")
    if file is not None:
        yield from _rows(file, here or recorded)
    if content := here or recorded:
        yield from _label(content, look.at(look.folder if file is None else file.parent, content.get(DIGESTS)), file)
    elif file is not None and file.with_name(CURATED).is_file():
        return  # curated.json names the file that label wrote, and audit_curated goes on from there
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
            yield look.file(_seen_from(entry), f"{title} {entry.get('path')}")
    if ledger := content.get("ledger"):
        yield audit_ledger(ledger, look, file)


def _rows(file: Path, content: Content | None) -> Iterator[Finding]:
    """Each row says who wrote it. Nothing for a file without such rows."""
    writers = writers_of(file)
    if not writers:
        return
    expected = (content or {}).get("teacher") or next(iter(writers.values()))
    wrong: dict[str, list[int]] = {}
    for number, by in _writers(file):
        for name, value in expected.items():
            if by.get(name) != value:
                wrong.setdefault(f"{name} {by.get(name)}, not {value}", []).append(number)
    if wrong:
        words = "; ".join(f"{lines(numbers)}: {what}" for what, numbers in wrong.items())
        yield Finding(f"{BY} of the rows", State.CHANGED, words)
    else:
        yield Finding(
            f"{BY} of the rows", State.VERIFIED, "all rows name this teacher" if content else _named(expected)
        )


def _writers(file: Path) -> Iterator[tuple[int, dict[str, Any]]]:
    with file.open("rb") as stream:
        for number, line in enumerate(stream, 1):
            if line.strip():
                yield number, writer_of(line) or {}


def audit_curated(folder: Path, look: Look) -> Finding:
    """A folder that curate wrote: its files, and the files that it read."""
    name, content = f"curated {folder}", read_object(folder / CURATED)
    if content is None:
        return Finding(name, State.CHANGED, f"{CURATED} is no JSON object")
    look, parts = look.at(folder, content.get(DIGESTS)), []
    for title, record in _claims(content):
        place = look.place(record) if title else None
        beside = {} if place is None else read_object(label_file(place)) or {}
        finding = look.at(folder, beside.get(DIGESTS)).file(record, f"{title} {record['relative']}".strip())
        if title:
            finding = replace(finding, parts=tuple(origin(place, {"label": content.get("label")}, look)))
        parts.append(finding)
    made = content.get("made") or {}
    words = _named({"task": content.get("task"), "mangakd": made.get("mangakd"), "date": made.get("date")})
    return Finding(name, State.NOTE if parts else State.UNRECORDED, words, tuple(parts))


def _claims(content: Content) -> Iterator[tuple[str, Content]]:
    """The files of curated.json: `files`, which curate wrote, then `data`, which it read."""
    for name, digest in (content.get("files") or {}).items():
        yield "", {"relative": name, "sha256": digest}
    if data := content.get("data"):
        # curated.json has the name alone, because the folder may be published. Most often the file lies beside the folder.
        yield "data", {"relative": f"../{data.get('file')}", "sha256": data.get("sha256")}


def _seen_from(entry: Content) -> Content:
    """The entry of a manifest: a relative path is seen from the manifest first, then from here, where it may have been typed."""
    path = entry.get("path")
    return entry if not path or Path(path).is_absolute() else {**entry, "relative": path}


def _named(values: Content) -> str:
    return ", ".join(
        f"{key} {' '.join(str(value).split())}" for key, value in values.items() if value not in (None, "", {}, [])
    )
