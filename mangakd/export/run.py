"""From a student's folder to the variant that ships: make → measure on validation → choose → test once → export/best.

`export.json` is the record of it, for the report and for whoever asks later why this one ships. It is written last; what a
killed export has finished is kept, and is not made again when it is repeated.
"""

import json
import platform
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from mangakd.core import cpu
from mangakd.core.errors import UserError
from mangakd.core.locks import waiting_lock
from mangakd.core.spec import Head
from mangakd.evaluation.report.export import FILE
from mangakd.export.choose import MAX_DROP, NAMES, SCORES, Choice, Judged, choose, judge
from mangakd.export.data import Data, Split
from mangakd.export.manifest import add_metrics, copy, read
from mangakd.export.measure import Measured, Subject, measure, of_student, of_variant
from mangakd.export.pooling import Pooling
from mangakd.export.room import told_when_full
from mangakd.export.smooth_quant import OFF
from mangakd.export.variants import CALIBRATION, VARIANTS, make
from mangakd.runtime.manifest import Manifest
from mangakd.runtime.model import BATCH
from mangakd.store.files import write_atomic

BEST = "best"
FORMAT = 1
LIKENESS = {"score": "Pearson's r with the student", "vector": "cosine to the student"}
Progress = Callable[[str], None]


@dataclass(frozen=True)
class Options:
    """max_drop: points of the score that a variant may lose on validation. batch_size: texts at a time when it is scored.

    threads: that it is measured on. max_length: tokens a text is cut to; None: as the folder says.
    """

    max_drop: float = MAX_DROP
    batch_size: int = BATCH
    threads: int = 1
    max_length: int | None = None

    def __post_init__(self) -> None:
        drop = self.max_drop
        if isinstance(drop, bool) or not isinstance(drop, int | float) or not 0 <= drop <= 100:
            raise UserError(f"export.max_drop={drop} must be points from 0 to 100, such as {MAX_DROP}.")
        for key, least in (("batch_size", 1), ("threads", 1), ("max_length", 2)):
            value = getattr(self, key)
            if key == "max_length" and value is None:
                continue
            if not isinstance(value, int) or isinstance(value, bool) or value < least:
                raise UserError(f"export.{key}={value} must be a whole number from {least} on.")


def steps(names: Sequence[str]) -> int:
    """How often `export` calls its progress, at most: each variant is made and scored, PyTorch too; latency, choice, test."""
    return 2 * len(names) + 4


def export(
    student: Path,
    out: Path,
    names: Sequence[str],
    data: Data,
    options: Options = Options(),
    pooling: Pooling | None = None,
    progress: Progress = lambda doing: None,
) -> dict[str, Any]:
    """Make the variants `names` of the Hugging Face folder `student` in `out`, and `out`/best, the one that ships.

    Returns what export.json holds (docs/how-to/export.md). pooling: as graph.read. progress: called with what is done next.
    Raises UserError for all that `make`, `measure` and `choose` refuse, and for labels that the student does not have.
    """
    out.mkdir(parents=True, exist_ok=True)
    with waiting_lock(out / ".choosing.lock", "exporting to this folder"), told_when_full(out):
        (out / FILE).unlink(missing_ok=True)  # of an earlier export, whose variants are about to change
        made = make(
            student, out, names, data.calibration, options.max_length, pooling, lambda name: progress(f"making {name}")
        )
        manifest = read(made[0])
        targets = data.validation.targets(manifest)
        subjects = [of_student(student, manifest), *map(of_variant, made)]
        measured = measure(subjects, data.validation.texts, options.batch_size, options.threads, progress=progress)
        progress("choosing")
        choice, pytorch = _choice(measured, manifest, data.validation, targets, options.max_drop)
        for each in choice.judged:
            found = {"validation": each.metrics(manifest.head)}
            add_metrics(out / each.name, found, each.difference, rows_independent=each.measured.company.independent)
        tested = None
        if data.test is not None:
            progress(f"testing {choice.name} on {len(data.test.texts)} texts")
            chosen = [subjects[0], of_variant(out / choice.name)]
            tested = _tested(chosen, manifest, data.test, options)
            add_metrics(out / choice.name, {"test": tested.metrics(manifest.head)}, tested.difference)
        copy(out / choice.name, out / BEST)
        record = _record(out, manifest, data, options, choice, pytorch, tested)
        text = json.dumps(record, indent=2, ensure_ascii=False) + "\n"
        write_atomic(out / FILE, lambda file: file.write(text.encode()))
    return record


def _choice(
    measured: Sequence[Measured], manifest: Manifest, split: Split, targets: np.ndarray | None, max_drop: float
) -> tuple[Choice, Judged]:
    """The choice among the variants, and PyTorch judged as they are."""
    pytorch, variants = measured[0], measured[1:]
    said = pytorch.outputs
    truth = _or_students(targets, said, manifest.head)
    precise = [row.name for row in VARIANTS.values() if row.fp32]
    teacher = split.of_teacher(manifest)
    choice = choose(variants, precise, said, manifest.head, truth, teacher, max_drop)
    return choice, judge([pytorch], said, manifest.head, truth, teacher, max_drop)[0]


def _tested(subjects: Sequence[Subject], manifest: Manifest, split: Split, options: Options) -> Judged:
    student, chosen = measure(subjects, split.texts, options.batch_size, options.threads, lengths=())
    truth = _or_students(split.targets(manifest), student.outputs, manifest.head)
    teacher = split.of_teacher(manifest)
    return judge([chosen], student.outputs, manifest.head, truth, teacher, options.max_drop)[0]


def _or_students(targets: np.ndarray | None, said: np.ndarray, head: Head) -> np.ndarray | None:
    """Where nobody knows what is right, what the student says is: the score is then the agreement with it."""
    if targets is not None or head.kind == "vector":
        return targets
    if head.kind == "score":
        return said
    return (said > 0).astype(np.float32) if head.several else said.argmax(-1)


def _advice(judged: Sequence[Judged]) -> str:
    """Where INT8 fails that was made after training: there is a stage for that."""
    lost = [each.name for each in judged if "int8" in each.name and not each.passed]
    if not lost or any(VARIANTS[each.name].trained for each in judged):
        return ""
    names = ", ".join(lost)
    return f" Trained with its quantisers, a student may lose less than {names}: stages=quantised (docs/how-to/recipes.md)."


def _how(how: str, quantisation: Mapping[str, Any] | None) -> str:
    """With the alpha that was chosen for this student."""
    if not quantisation:
        return how
    alpha = quantisation["smooth_quant_alpha"]
    return f"{how}, SmoothQuant {'off' if alpha == OFF else f'alpha {alpha:g}'}"


def _record(
    out: Path, manifest: Manifest, data: Data, options: Options, choice: Choice, pytorch: Judged, tested: Judged | None
) -> dict[str, Any]:
    head = manifest.head
    labelled = data.validation.labels is not None and head.kind != "vector"
    score = NAMES[head.kind] if labelled else LIKENESS.get(head.kind, "agreement with the student")
    calibrated = any(VARIANTS[each.name].calibrated for each in choice.judged)
    rows = {"calibration": min(len(data.calibration), CALIBRATION) if calibrated else 0}
    rows["validation"] = len(data.validation.texts)
    if data.test is not None:
        rows["test"] = len(data.test.texts)

    def shown(judged: Judged, **more: Any) -> Mapping[str, Any]:
        found = judged.metrics(head)
        return {**more, "score": found.pop(NAMES[head.kind]), "score_interval": list(judged.score.interval), **found}

    variants = {
        each.name: shown(
            each, backend=VARIANTS[each.name].backend, how=_how(VARIANTS[each.name].how, found), quantisation=found
        )
        for each in choice.judged
        for found in (read(out / each.name).content["quantisation"],)
    }
    return {
        "format": FORMAT, "kind": head.kind, "several": head.several,
        "score": score, "score_format": SCORES[NAMES[head.kind]].format,
        "labelled": labelled, "student": manifest.content["source"],
        "max_drop": options.max_drop, "batch_size": options.batch_size, "threads": options.threads,
        "max_length": manifest.max_length, "rows": rows, "machine": f"{platform.system()} {platform.machine()}",
        "cpu": cpu.name(), "int8_units": cpu.int8_units(),
        "chosen": choice.name, "reason": choice.reason + _advice(choice.judged),
        "pytorch": shown(pytorch, backend="pytorch", how="fp32, as trained"), "variants": variants,
        "test": None if tested is None else shown(tested),
    }  # fmt: skip
