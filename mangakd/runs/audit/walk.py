"""From the folder or file that a user names to its findings."""

from collections.abc import Sequence
from pathlib import Path

from mangakd.core.errors import UserError
from mangakd.core.run_folder import METRICS, PROVENANCE
from mangakd.runs.audit.export import audit_variant, is_variant
from mangakd.runs.audit.finding import Finding
from mangakd.runs.audit.look import Look
from mangakd.runs.audit.origin import audit_curated, audit_file
from mangakd.runs.audit.run import Digests, audit_run
from mangakd.runs.origins import CURATED, LABEL

KINDS = "a run folder, its student/, an exported folder such as export/best, a folder of curate, or a file of label"


def audit(path: Path, search: Sequence[Path], digests: Digests) -> Finding:
    """search: folders to look in for what was moved. Raises UserError for a path that no record belongs to."""
    look = Look(path if path.is_dir() else path.parent, search)
    if not path.exists():
        raise UserError(f"folder={path}: there is no such folder or file. Give {KINDS}.")
    if path.is_file():
        return audit_file(_described(path), look)
    if is_variant(path):
        return audit_variant(path, look, digests)
    if (path / PROVENANCE).is_file() or (path / METRICS).is_file():
        return audit_run(path, look, digests)
    if (path / CURATED).is_file():
        return audit_curated(path, look)
    if variants := sorted(each for each in path.iterdir() if each.is_dir() and is_variant(each)):
        return Finding(f"export {path}", parts=tuple(audit_variant(each, look, digests) for each in variants))
    if (path / "config.json").is_file():
        return _student(path, look, digests)
    raise UserError(f"folder={path} holds no record of what made it. Give {KINDS}.")


def _described(path: Path) -> Path:
    """The file of answers, where its manifest was named."""
    return path.with_name(path.name.removesuffix(LABEL)) if path.name.endswith(LABEL) else path


def _student(path: Path, look: Look, digests: Digests) -> Finding:
    """A student is audited with its run. Raises UserError for one without a run."""
    run = path.absolute().parent
    run = next((each for each in (run, *look.search) if (each / PROVENANCE).is_file()), run)
    if not (run / PROVENANCE).is_file():
        raise UserError(
            f"folder={path} is a model, and {run} has no {PROVENANCE}, which says what made it. Name the folder of its run: "
            "search=[<run>]."
        )
    return audit_run(run, look, digests)
