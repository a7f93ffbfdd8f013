"""Exports a student's folder: make variants → measure on validation → choose → test once → export/best.

`export.json` is the record of the export, for the report and as the reason for the choice. It is written last. After a kill,
finished variants stay, and the next export does not make them again.
"""

import json
import platform
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from mangakd.core import cpu
from mangakd.core.errors import UserError
from mangakd.core.locks import waiting_lock
from mangakd.core.spec import Head
from mangakd.evaluation.report.export import FILE
from mangakd.export.choose import MAX_DROP, Choice, Comparison, choose, judge, measure_of
from mangakd.export.data import Data, Split
from mangakd.export.disk import explain_full_disk, make_folder
from mangakd.export.manifest import add_metrics, copy, read
from mangakd.export.measure import Measurement, Subject, measure, of_student, of_variant
from mangakd.export.seq2seq import Writing
from mangakd.export.smooth_quant import OFF
from mangakd.export.variants import CALIBRATION, VARIANTS, make
from mangakd.models.pooling import Pooling
from mangakd.runtime.manifest import Manifest
from mangakd.runtime.model import BATCH
from mangakd.runtime.tokenise import Tokeniser
from mangakd.store.files import write_atomic

BEST = "best"
FORMAT = 1
ALIKE = "agreement with the student"
LIKENESS = {"score": "Pearson's r with the student", "vector": "cosine to the student"}
Progress = Callable[[str], None]


@dataclass(frozen=True)
class Options:
    """max_drop: points of the score that a variant may lose on validation. batch_size: of the scoring.

    threads: of the measurement. max_length: texts are truncated to this number of tokens; None reads the folder's setting.
    max_new_tokens: of what a student writes for a text; None reads the task's, then the folder's
    setting. Of language models alone: max_perplexity_ratio, a variant's perplexity in shares of the merged folder's; tokens: of
    answers that each variant predicts on validation and on test.
    """

    max_drop: float = MAX_DROP
    batch_size: int = BATCH
    threads: int = 1
    max_length: int | None = None
    max_new_tokens: int | None = None
    max_perplexity_ratio: float = 1.02
    tokens: int = 2000

    def __post_init__(self) -> None:
        drop = self.max_drop
        if isinstance(drop, bool) or not isinstance(drop, int | float) or not 0 <= drop <= 100:
            raise UserError(f"export.max_drop={drop} must be points from 0 to 100, such as {MAX_DROP}.")
        ratio = self.max_perplexity_ratio
        if isinstance(ratio, bool) or not isinstance(ratio, int | float) or not 1 <= ratio <= 10:
            raise UserError(f"export.max_perplexity_ratio={ratio} must be a number from 1 to 10, such as 1.02.")
        least_of = {"batch_size": 1, "threads": 1, "max_length": 2, "max_new_tokens": 1, "tokens": 100}
        for key, least in least_of.items():
            value = getattr(self, key)
            if key in ("max_length", "max_new_tokens") and value is None:
                continue
            if not isinstance(value, int) or isinstance(value, bool) or value < least:
                raise UserError(f"export.{key}={value} must be a whole number from {least} on.")


def steps(names: Sequence[str]) -> int:
    """The largest number of calls of `progress`: two a variant (make, score), and four for PyTorch, latency, choice and test."""
    return 2 * len(names) + 4


def export(
    student: Path,
    out: Path,
    names: Sequence[str],
    data: Data,
    options: Options = Options(),
    pooling: Pooling | None = None,
    progress: Progress = lambda doing: None,
    pairs: bool | None = None,
) -> dict[str, Any]:
    """Make the variants `names` of the Hugging Face folder `student` in `out`, and `out`/best, a copy of the chosen variant.

    Returns the content of export.json (docs/how-to/export.md). pooling, pairs: as in graph.read. progress: called with the next
    step. Raises UserError as `make`, `measure` and `choose` do, and for labels that the student does not have.
    """
    make_folder(out)

    def making(name: str) -> None:
        (out / FILE).unlink(missing_ok=True)  # the record of an earlier export, whose variants change from now on
        progress(f"making {name}")

    with waiting_lock(out / ".choosing.lock", "exporting to this folder"), explain_full_disk(out):
        folders = make(
            student,
            out,
            names,
            data.calibration,
            options.max_length,
            pooling,
            making,
            pairs,
            Writing(options.max_new_tokens or data.max_new_tokens, data.turns),
        )
        manifest = read(folders[0])
        targets = data.validation.targets(manifest)
        subjects = [of_student(student, manifest), *map(of_variant, folders)]
        measurements = measure(subjects, data.validation.texts, options.batch_size, options.threads, progress=progress)
        measurements = as_texts(measurements, manifest)
        progress("choosing")
        choice, pytorch = _choice(measurements, manifest, data.validation, targets, options.max_drop)
        for each in choice.comparisons:
            metrics = {"validation": each.metrics()}
            apart = each.difference if manifest.decoding is None else 0.0  # of texts it is no distance of logits
            independent = each.measurement.company.independent
            add_metrics(out / each.name, metrics, apart, rows_independent=independent)
        test = None
        if data.test is not None:
            progress(f"testing {choice.name} on {len(data.test.texts)} texts")
            pair = [subjects[0], of_variant(out / choice.name)]
            test = _test(pair, manifest, data.test, options)
            apart = test.difference if manifest.decoding is None else 0.0
            add_metrics(out / choice.name, {"test": test.metrics()}, apart)
        copy(out / choice.name, out / BEST)
        record = _record(out, manifest, data, options, choice, pytorch, test)
        text = json.dumps(record, indent=2, ensure_ascii=False) + "\n"
        write_atomic(out / FILE, lambda file: file.write(text.encode()))
    return record


def _choice(
    measurements: Sequence[Measurement], manifest: Manifest, split: Split, targets: np.ndarray | None, max_drop: float
) -> tuple[Choice, Comparison]:
    """The choice among the variants, and the comparison of PyTorch with itself."""
    pytorch, variants = measurements[0], measurements[1:]
    answers = pytorch.outputs
    truth = _or_students(targets, answers, manifest.head)
    precise = [row.name for row in VARIANTS.values() if row.fp32]
    teacher = split.of_teacher(manifest)
    choice = choose(variants, precise, answers, manifest.head, truth, teacher, max_drop, served=split.served)
    return choice, judge([pytorch], answers, manifest.head, truth, teacher, max_drop, served=split.served)[0]


def _test(subjects: Sequence[Subject], manifest: Manifest, split: Split, options: Options) -> Comparison:
    measured = measure(subjects, split.texts, options.batch_size, options.threads, lengths=())
    student, variant = as_texts(measured, manifest)
    truth = _or_students(split.targets(manifest), student.outputs, manifest.head)
    teacher = split.of_teacher(manifest)
    return judge([variant], student.outputs, manifest.head, truth, teacher, options.max_drop, served=split.served)[0]


def as_texts(measurements: list[Measurement], manifest: Manifest) -> list[Measurement]:
    """With (N) texts in place of token ids, if the student writes: a task judges texts."""
    if manifest.decoding is None:
        return measurements
    tokeniser = Tokeniser.of(manifest)
    return [replace(each, outputs=np.array(tokeniser.texts(each.outputs), dtype=object)) for each in measurements]


def _or_students(targets: np.ndarray | None, answers: np.ndarray, head: Head) -> np.ndarray | None:
    """The targets. Without labels, the student's answers are the targets, and the score is the agreement with the student."""
    if targets is not None or head.kind == "vector":
        return targets
    if head.kind in ("score", "tokens"):
        return answers
    return (answers > 0).astype(np.float32) if head.several else answers.argmax(-1)


def _advice(comparisons: Sequence[Comparison]) -> str:
    """If a post-training INT8 variant fails, suggest quantisation-aware training."""
    failures = [each.name for each in comparisons if "int8" in each.name and not each.passed]
    if not failures or any(VARIANTS[each.name].trained for each in comparisons):
        return ""
    names = ", ".join(failures)
    return f" Trained with its quantisers, a student may lose less than {names}: stages=quantised (docs/how-to/recipes.md)."


def _how(how: str, quantisation: Mapping[str, Any] | None) -> str:
    """The recipe, with the SmoothQuant alpha that was chosen for the student."""
    if not quantisation:
        return how
    alpha = quantisation["smooth_quant_alpha"]
    return f"{how}, SmoothQuant {'off' if alpha == OFF else f'alpha {alpha:g}'}"


def _record(
    out: Path, manifest: Manifest, data: Data, options: Options, choice: Choice, pytorch: Comparison, test: Comparison | None
) -> dict[str, Any]:  # fmt: skip
    head = manifest.head
    name, scale = measure_of(head, data.validation.served)
    has_labels = data.validation.labelled and (data.validation.served is not None or head.kind != "vector")
    alike = f"{scale.title} with the student" if data.validation.served else LIKENESS.get(head.kind, ALIKE)
    score = name if has_labels else alike
    calibrates = any(VARIANTS[each.name].calibrated for each in choice.comparisons)
    rows = {"calibration": min(len(data.calibration), CALIBRATION) if calibrates else 0}
    rows["validation"] = data.validation.size
    if data.test is not None:
        rows["test"] = data.test.size

    def entry(comparison: Comparison, **more: Any) -> Mapping[str, Any]:
        metrics = comparison.metrics()
        score, interval = metrics.pop(name), list(comparison.score.interval)
        return {**more, "score": score, "score_interval": interval, **metrics}

    variants = {}
    for each in choice.comparisons:
        row, quantisation = VARIANTS[each.name], read(out / each.name).content["quantisation"]
        how = _how(row.how, quantisation)
        variants[each.name] = entry(each, backend=row.backend, how=how, quantisation=quantisation)
    return {
        "format": FORMAT, "kind": head.kind, "several": head.several,
        "score": score, "score_format": scale.format,
        "labelled": has_labels, "student": manifest.content["source"],
        "max_drop": options.max_drop, "batch_size": options.batch_size, "threads": options.threads,
        "max_length": manifest.max_length, "rows": rows,
        "max_new_tokens": manifest.decoding and manifest.decoding.max_new_tokens,
        "machine": f"{platform.system()} {platform.machine()}",
        "cpu": cpu.name(), "int8_units": cpu.int8_units(),
        "chosen": choice.name, "reason": choice.reason + _advice(choice.comparisons),
        "pytorch": entry(pytorch, backend="pytorch", how="fp32, as trained"), "variants": variants,
        "test": None if test is None else entry(test),
    }  # fmt: skip
