"""A run folder: its outputs, and the settings, data, teacher, student, code and seeds that made them."""

from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from mangakd.core.code_version import code_version
from mangakd.core.run_folder import PROVENANCE, PROVENANCE_PARTS
from mangakd.runs.audit.finding import Finding, State, group
from mangakd.runs.audit.look import Look
from mangakd.runs.audit.origin import audit_curated, origin
from mangakd.runs.origins import CURATED, read_object

Content = Mapping[str, Any]
Digests = Callable[[Path], Mapping[str, str] | None]
"""Run folder → digest of each split of its data, where the data are made by code and can be made again; else None."""


def audit_run(folder: Path, look: Look, digests: Digests) -> Finding:
    name = f"run {folder}"
    content = read_object(folder / PROVENANCE)
    if content is None:
        damaged = (folder / PROVENANCE).is_file()
        words = "is no JSON object" if damaged else "the run was made by a version of mangakd that wrote none"
        return Finding(name, State.CHANGED if damaged else State.UNRECORDED, f"{PROVENANCE}: {words}")
    look = look.at(folder, read_object(folder / PROVENANCE_PARTS))
    dates = ", ".join(f"{word} {content[word]}" for word in ("started", "finished") if content.get(word))
    parts = [
        *_outputs(content, look), _data(content, look, digests), _teacher(content.get("teacher") or {}, look),
        *_student(content.get("student") or {}, look), _code(content.get("code") or {}), _seeds(content),
    ]  # fmt: skip
    return Finding(name, State.NOTE, dates, tuple(parts))


def _outputs(content: Content, look: Look) -> list[Finding]:
    """A finding for each file, and one for each folder."""
    if "outputs" not in content:
        return [Finding("outputs", State.UNRECORDED, "the run has not finished")]
    records: dict[str, list[Content]] = {}
    for record in content["outputs"]:
        records.setdefault(record["relative"].split("/")[0], []).append(record)
    return [
        look.file(each[0])
        if len(each) == 1 and each[0]["relative"] == name
        else group(f"{name}/", [*map(look.file, each)])
        for name, each in records.items()
    ]


def _data(content: Content, look: Look, digests: Digests) -> Finding:
    data = content.get("data") or {}
    files, places = [], []
    for record in data.get("files", ()):
        finding = look.file(record, f"{record.get('key', '')}={record.get('path') or record.get('relative')}")
        places.append(look.place(record))
        files.append(replace(finding, parts=tuple(origin(places[-1], record, look))))
    curated = dict.fromkeys(
        place.parent for place in places if place is not None and (place.parent / CURATED).is_file()
    )
    files += [audit_curated(each, look) for each in curated]
    rows = ", ".join(f"{name} {split['rows']}" for name, split in (data.get("splits") or {}).items())
    source = str(data.get("source") or "").rpartition(".")[2]
    parts = files if files else [_made_again(data, digests(look.folder))]
    return Finding("data", State.NOTE, f"{source}: {rows} rows", tuple(parts))


def _made_again(data: Content, now: Mapping[str, str] | None) -> Finding:
    """Data without a file."""
    splits = {name: split["digest"] for name, split in (data.get("splits") or {}).items()}
    if now is None:
        return Finding(
            "rows", State.UNRECORDED, "no file of this machine holds them; their digests are in provenance.json"
        )
    wrong = [name for name, digest in splits.items() if now.get(name) != digest]
    if wrong:
        return Finding("rows", State.CHANGED, f"the code makes other rows now: {', '.join(wrong)}")
    return Finding("rows", State.VERIFIED, "made again by the code, with equal digests")


def _teacher(teacher: Content, look: Look) -> Finding:
    parts = [
        group(
            f"model {model['path']}",
            [*map(look.file, model["files"])],
            f"weights {model['weights']}, seed {model['seed']}",
        )
        for model in teacher.get("models", ())
    ]
    if files := teacher.get("files"):
        parts.append(group("answers", [*map(look.file, files)]))
    if store := teacher.get("store"):
        records = [{"relative": name, "sha256": digest} for name, digest in store["shards"].items()]
        # The store is found by its manifest, whose scores may change.
        place = look.place({key: f"{store[key]}/manifest.json" for key in ("path", "relative") if key in store})
        inside = look if place is None else look.at(place.parent)
        parts.append(group(f"store {store.get('path') or store.get('relative')}", [*map(inside.file, records)]))
    if not parts:
        return Finding("teacher", State.UNRECORDED)
    words = f"{teacher.get('kind')}, {teacher.get('name')}, fingerprint {teacher.get('fingerprint')}"
    return Finding("teacher", State.NOTE, words, tuple(parts))


def _student(student: Content, look: Look) -> list[Finding]:
    """What the student was before the training, where a model of its own was."""
    if not student.get("files"):
        return []
    return [group(f"student.path={student['path']}", [*map(look.file, student["files"])])]


def _code(code: Content) -> Finding:
    """A note: a student stays what it is when mangakd is updated."""
    commit = (
        f", commit {code['commit'][:12]}{' with changes' if code.get('dirty') else ''}" if code.get("commit") else ""
    )
    here = code_version()
    same = (
        "the same code is here" if here["digest"] == code.get("digest") else f"here: {here['mangakd']} {here['digest']}"
    )
    return Finding("code", State.NOTE, f"mangakd {code.get('mangakd')} {code.get('digest')}{commit}; {same}")


def _seeds(content: Content) -> Finding:
    seeds = content.get("seeds") or {}
    return Finding("seeds", State.NOTE, ", ".join(f"{key}={value}" for key, value in seeds.items()))
