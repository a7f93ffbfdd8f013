"""An exported variant: its files, the student that it was made of, and the run that made the student."""

from pathlib import Path
from typing import Any

from mangakd.core.run_folder import PROVENANCE, PROVENANCE_PARTS
from mangakd.runs.audit.finding import Finding, State, group
from mangakd.runs.audit.look import Look
from mangakd.runs.audit.run import Digests, audit_run
from mangakd.runs.origins import read_object

MANIFESTS, WEIGHTS = ("manifest.json", "language.json"), "model.safetensors"
WHOLE = 64  # hex digits of the sha256 of a file


def is_variant(folder: Path) -> bool:
    return "variant" in _content(folder)


def audit_variant(folder: Path, look: Look, digests: Digests) -> Finding:
    content = _content(folder)
    look = look.at(folder)
    files = group(
        "files", [look.file({"relative": name, "sha256": digest}) for name, digest in content.get("files", {}).items()]
    )
    words = f"{content['variant']}, {content.get('backend') or content.get('engine')}"
    return Finding(f"export {folder}", State.NOTE, words, (files, _source(content.get("source") or {}, look, digests)))


def _content(folder: Path) -> dict[str, Any]:
    """Of the manifest; a language model has another one."""
    return next((content for name in MANIFESTS if (content := read_object(folder / name))), {})


def _source(source: dict[str, str], look: Look, digests: Digests) -> Finding:
    """The manifest names the student's folder, and not its place."""
    name, digest = source.get("folder"), source.get("sha256")
    if not name or not digest:
        return Finding("student", State.UNRECORDED)
    above = look.folder.absolute().parent
    around = (above.parent / name, above / name, *(each / name for each in look.search), *look.search)
    student = next((place for place in around if (place / "config.json").is_file()), None)
    if student is None:
        words = f"there is no folder {name} beside {above}; search=[…] names folders to look in"
        return Finding(f"student {name}", State.MISSING, words)
    run = student.parent
    parts = (audit_run(run, look, digests),) if (run / PROVENANCE).is_file() else _no_run(student)
    if len(digest) != WHOLE or not (student / WEIGHTS).is_file():
        return Finding(
            f"student {student}", State.UNRECORDED, f"the weights are in several files; digest {digest}", parts
        )
    look = look.at(student, read_object(run / PROVENANCE_PARTS))
    weights = look.file({"relative": WEIGHTS, "sha256": digest})
    changed = f": the export was made of other weights, {weights.words}" if weights.state is State.CHANGED else ""
    return Finding(f"student {student}", weights.state, f"{WEIGHTS}{changed}", parts)


def _no_run(student: Path) -> tuple[Finding, ...]:
    return (Finding("run", State.UNRECORDED, f"{student.parent} has no {PROVENANCE}"),)
