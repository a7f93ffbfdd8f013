"""provenance.json of a run folder: which teacher, data, settings, code and seeds made the student. `mangakd audit` verifies it.

The inputs are written before the training, so that a killed run has them too, and the outputs at the end. provenance_parts.json
has digests of lines, keys and tensors, which say what changed in a file.
"""

import json
import shlex
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from mangakd.core.code_version import code_version, package_versions
from mangakd.core.run_folder import COMMAND, METRICS, PROVENANCE, PROVENANCE_PARTS
from mangakd.data.file_parts import parts_of
from mangakd.models.folder import model_file
from mangakd.models.location import locate
from mangakd.models.outline import weight_files
from mangakd.runs.files_on_record import all_files, record_of
from mangakd.runs.origins import origin_of, read_object
from mangakd.runs.results import calibration
from mangakd.runs.run import Run
from mangakd.runs.settings import flat
from mangakd.store import journal
from mangakd.store.files import write_atomic
from mangakd.teachers.base import TeacherProvider
from mangakd.teachers.cached import CachedTeacher
from mangakd.teachers.calibrated import CalibratedTeacher

FORMAT = 1
PACKAGES = ("torch", "transformers", "tokenizers", "lightning", "numpy", "pyarrow")
OUTPUTS = ("config.yaml", COMMAND, METRICS, "generations.jsonl", "student", "adapter", "predictions")
MODEL = (
    "config.json", "generation_config.json", "tokenizer.json", "tokenizer_config.json", "special_tokens_map.json", "vocab.txt",
    "merges.txt", "spiece.model", "sentencepiece.bpe.model", "tokenizer.model", "chat_template.jinja", "modules.json",
    "config_sentence_transformers.json",
)  # fmt: skip
"""Files beside the weights that say what a model answers."""


def write_inputs(run: Run, teacher: TeacherProvider) -> None:
    """What the run learns from. Called on the first rank, when the teacher is there and nothing is trained."""
    folder, settings = run.given.folder, run.given.settings(None)
    content = {
        "format": FORMAT,
        "started": _now(),
        "command": shlex.join(run.given.command),
        "code": code_version(),
        "versions": package_versions(PACKAGES),
        "seeds": {
            key: value for key, value in flat(settings).items() if key.rpartition(".")[2].endswith(("seed", "seeds"))
        },
        "data": _data(run, settings),
        "teacher": _teacher(run, teacher, settings["teacher"]),
        "student": _student(run),
    }
    _write(folder, content)


def write_outputs(folder: Path) -> None:
    """What the run wrote, beside its inputs. Called on the first rank at the end."""
    content = read_object(folder / PROVENANCE) or {"format": FORMAT}
    outputs = [
        record_of(file, folder) for name in OUTPUTS for file in all_files(folder / name) if (folder / name).exists()
    ]
    _write(folder, {**content, "finished": _now(), "outputs": outputs})


def _data(run: Run, settings: Mapping[str, Any]) -> dict[str, Any]:
    corpus, folder = run.parts.corpus, run.given.folder
    named = {
        f"data.{key}": Path(value).expanduser()
        for key, value in flat(settings["data"]).items()
        if isinstance(value, str) and key.rpartition(".")[2].endswith("path")
    }
    files = [
        {**record_of(file, folder, key=key), **origin_of(file)}
        for key, path in named.items()
        if path.exists()
        for file in all_files(path)
    ]
    splits = {name: {"rows": len(rows), "digest": corpus.digest(name)} for name, rows in corpus.splits.items()}
    return {"source": settings["data"].get("_target_"), "files": files, "splits": splits}


def _teacher(run: Run, teacher: TeacherProvider, settings: Mapping[str, Any]) -> dict[str, Any]:
    options, members, folder = run.parts.teacher, run.material.members, run.given.folder
    models = [
        {
            "path": member.path,
            "seed": member.seed,
            "weights": members.unread(member).weights,
            "files": _model(members.where(member), folder),
        }
        for member in options.models
    ]
    known = {member.path for member in options.models}
    paths = [settings.get("path"), settings.get("texts"), *(settings.get("paths") or ())]
    others = [Path(path).expanduser() for path in paths if isinstance(path, str) and path not in known]
    files = [
        record_of(file, folder) for path in others if not _is_model(path) and path.exists() for file in all_files(path)
    ]
    source = teacher.teacher if isinstance(teacher, CalibratedTeacher) else teacher
    store = _store(source, folder) if isinstance(source, CachedTeacher) else None
    return {
        "kind": type(options).__name__, "name": teacher.spec.name, "fingerprint": teacher.fingerprint, "models": models,
        "files": files, "store": store, "calibration": calibration(teacher),
    }  # fmt: skip


def _is_model(path: Path) -> bool:
    return (path / "config.json").is_file()


def _store(teacher: CachedTeacher, folder: Path) -> dict[str, Any]:
    """Shards are never changed; later runs add others."""
    place = record_of(teacher.folder / "manifest.json", folder)
    shards = {entry.name: entry.sha256 for entry in journal.read(teacher.folder)}
    path: dict[str, Any] = {name: str(Path(place[name]).parent) for name in ("path", "relative") if name in place}
    return {**path, "teacher": teacher.fingerprint, "shards": shards}


def _student(run: Run) -> dict[str, Any]:
    student = run.parts.student
    if student.path is None:
        return {"path": None, "layers": student.layers and list(student.layers), "files": []}
    return {"path": student.path, "files": _model(locate(student.path, "student.path"), run.given.folder)}


def _model(where: str, folder: Path) -> list[dict[str, Any]]:
    """The files of a model's folder or hub id. folder: of the run."""
    beside = (model_file(where, name) for name in MODEL)
    files = [*map(Path, weight_files(where)), *(file for file in beside if file is not None)]
    return [record_of(file, folder) for file in files]


def _records(content: Any) -> Iterator[Mapping[str, Any]]:
    """All entries of files in provenance.json."""
    if isinstance(content, list):
        for each in content:
            yield from _records(each)
    elif isinstance(content, dict):
        if {"relative", "sha256"} <= content.keys():
            yield content
        else:
            for each in content.values():
                yield from _records(each)


def _write(folder: Path, content: Mapping[str, Any]) -> None:
    """Both files; the parts first, so that provenance.json never lacks them."""
    before = read_object(folder / PROVENANCE_PARTS) or {}
    parts: dict[str, Any] = {}
    for record in _records(content):
        digest = record["sha256"]
        if digest not in parts and (entry := before.get(digest) or _parts(record, folder)):
            parts[digest] = entry
    for name, values, indent in ((PROVENANCE_PARTS, parts, None), (PROVENANCE, content, 2)):
        text = json.dumps(values, indent=indent, ensure_ascii=False) + "\n"
        write_atomic(folder / name, lambda file, text=text: file.write(text.encode()))  # type: ignore[misc]


def _parts(record: Mapping[str, Any], folder: Path) -> dict[str, Any] | None:
    parts = parts_of(Path(record["path"]) if "path" in record else folder / record["relative"])
    return None if parts is None else parts.entry()


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")
