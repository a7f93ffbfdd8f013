"""Exports a language model's folder: make variants → predict validation → measure → choose → test once → export/best.

`export.json` has the form of mangakd/export/run.py's, and is written last. After a kill, finished variants stay.
"""

import json
import platform
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from mangakd.core import cpu
from mangakd.core.locks import waiting_lock
from mangakd.data.chat_tokens import Marked
from mangakd.evaluation.report.export import FILE, LANGUAGE
from mangakd.export.disk import explain_full_disk, make_folder
from mangakd.export.language import student as students
from mangakd.export.language.choose import Choice, Comparison, Limits, choose
from mangakd.export.language.data import LanguageData
from mangakd.export.language.manifest import add_metrics
from mangakd.export.language.quality import TOP, Predictions, compare, predict
from mangakd.export.language.speed import Speed, measure
from mangakd.export.language.torch_engine import read_engine
from mangakd.export.language.variants import MERGED, VARIANTS, make, open_variant
from mangakd.export.manifest import copy
from mangakd.export.run import BEST, FORMAT, Options
from mangakd.runtime.language_manifest import LanguageManifest, read
from mangakd.store.files import write_atomic

Progress = Callable[[str], None]


def steps(names: Sequence[str]) -> int:
    """The largest number of calls of `progress`: three for each variant, of which `merged` always is one, choice and test."""
    return 3 * len({MERGED, *names}) + 2


def export(
    folder: Path,
    out: Path,
    names: Sequence[str],
    data: LanguageData,
    options: Options,
    progress: Progress = lambda doing: None,
) -> dict[str, Any]:
    """Make the variants `names` of a language model's folder in `out`, and `out`/best, a copy of the chosen variant.

    Returns the content of export.json. progress: called with the next step. Raises UserError as `make` does, and for data without
    a sequence that fits.
    """
    student = students.read(folder)
    limits = Limits(options.max_perplexity_ratio, options.max_drop)
    context = min(options.max_length or student.context, student.context)
    sequences = data.validation.cut(options.tokens, context)
    asked = [] if data.test is None else data.test.cut(options.tokens, context)
    make_folder(out)

    def making(name: str) -> None:
        (out / FILE).unlink(missing_ok=True)  # the record of an earlier export, whose variants change from now on
        progress(f"making {name}")

    with waiting_lock(out / ".choosing.lock", "exporting to this folder"), explain_full_disk(out):
        folders = make(
            student, out, names, data.texts(student.tokenizer), options.threads, options.max_length, making
        )  # fmt: skip
        manifests = [read(each) for each in folders]
        comparisons = _compared(folders, sequences, limits, progress)
        wanted = [each for each in comparisons if each.name in names]
        progress("choosing")
        choice = choose(wanted, limits, MERGED)
        for each in comparisons:
            add_metrics(out / each.name, {"validation": each.metrics()})
        test = None
        if asked:
            progress(f"testing {choice.name} on {len(asked)} sequences")
            test = _test(out, choice, asked, limits)
            add_metrics(out / choice.name, {"test": test.metrics()})
        copy(out / choice.name, out / BEST, read)
        rows = {"calibration": len(data.calibration), "validation": len(sequences)} | (
            {"test": len(asked)} if test else {}
        )
        record = _record(manifests, options, choice, comparisons, names, test, rows)
        record["tokens"] = sum(sum(each.targets[1:]) for each in sequences)
        text = json.dumps(record, indent=2, ensure_ascii=False) + "\n"
        write_atomic(out / FILE, lambda file: file.write(text.encode()))
    return record


def _compared(
    folders: Sequence[Path], sequences: Sequence[Marked], limits: Limits, progress: Progress
) -> list[Comparison]:
    """`merged` with itself first. One model is open at a time while it predicts."""
    predictions: dict[str, Predictions] = {}
    for folder in folders:
        progress(f"scoring {folder.name} on {len(sequences)} sequences")
        predictions[folder.name] = _predicted(folder, sequences)
    qualities = compare(predictions[MERGED], predictions, sequences)
    ids = [token for each in sequences for token in each.ids]
    speeds = measure(folders, ids, read(folders[0]).context, progress)
    return [
        Comparison(folder.name, qualities[folder.name], speed, limits)
        for folder, speed in zip(folders, speeds, strict=True)
    ]


def _predicted(folder: Path, sequences: Sequence[Marked]) -> Predictions:
    """`merged` predicts in this process, which has PyTorch already."""
    if folder.name == MERGED:
        return predict(read_engine(folder), sequences)
    with open_variant(folder)[1] as engine:
        return predict(engine, sequences)


def _test(out: Path, choice: Choice, sequences: Sequence[Marked], limits: Limits) -> Comparison:
    merged = _predicted(out / MERGED, sequences)
    own = merged if choice.name == MERGED else _predicted(out / choice.name, sequences)
    return Comparison(choice.name, compare(merged, {choice.name: own}, sequences)[choice.name], None, limits)


def _record(
    manifests: Sequence[LanguageManifest],
    options: Options,
    choice: Choice,
    comparisons: Sequence[Comparison],
    names: Sequence[str],
    test: Comparison | None,
    rows: Mapping[str, int],
) -> dict[str, Any]:
    """Rows are named as those of other students: `pytorch` is the merged folder, which all others are compared with."""
    merged = comparisons[0]
    assert merged.speed is not None
    entries = {
        each.name: _entry(each, manifest)
        for each, manifest in zip(comparisons, manifests, strict=True)
        if each.name in (*names, choice.name)
    }
    return {
        "format": FORMAT, "kind": LANGUAGE, "several": False, "score": "right tokens", "score_format": "{:.1%}", "labelled": True,
        "student": manifests[0].content["source"], "dtype": manifests[0].content["recipe"]["dtype"], "top": TOP,
        "max_drop": options.max_drop, "max_perplexity_ratio": options.max_perplexity_ratio, "threads": options.threads,
        "context": manifests[0].context, "prompt": merged.speed.prompt, "new": merged.speed.new, "rows": dict(rows),
        "machine": f"{platform.system()} {platform.machine()}", "cpu": cpu.name(), "int8_units": cpu.int8_units(),
        "chosen": choice.name, "reason": choice.reason,
        "pytorch": {**_entry(merged, manifests[0]), "backend": "pytorch"}, "variants": entries,
        "test": None if test is None else test.metrics(),
    }  # fmt: skip


def _entry(comparison: Comparison, manifest: LanguageManifest) -> dict[str, Any]:
    speed: Speed | None = comparison.speed
    assert speed is not None
    return {
        **comparison.metrics(), "backend": manifest.engine, "how": VARIANTS[comparison.name].how,
        "recipe": manifest.content["recipe"], "parity": manifest.content["parity"], "latency_ms": {"0": speed.answer_ms},
    }  # fmt: skip
