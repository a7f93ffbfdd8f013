"""The report's section on exported variants, from export/export.json, which mangakd/export/run.py writes.

Times, memory and sizes are of the machine that exported. Scores, and drops against the student in PyTorch fp32, are on
validation, because validation chose the variant. The chosen variant also has a test score.
"""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from mangakd.core.errors import UserError
from mangakd.evaluation.report import export_language
from mangakd.evaluation.report.blocks import Block, Figure, Section, Table, Value
from mangakd.evaluation.report.svg import Axis, Series, chart

FOLDER, FILE = "export", "export.json"  # the folder in the run's folder, and its record
BACKENDS = {
    "pytorch": "PyTorch fp32", "onnxruntime": "ONNX Runtime", "openvino": "OpenVINO", "llama.cpp": "llama.cpp",
    "transformers": "Hugging Face folder",
}  # fmt: skip
LANGUAGE = "language"  # kind of the record of a language model
PERCENTILES = ("p50", "p95", "p99")
Record = Mapping[str, Any]


def read(folder: Path) -> Record | None:
    """The record of an export folder, None without a record. Raises UserError if the record is damaged."""
    file = folder / FILE
    if not file.is_file():
        return None
    try:
        record = json.loads(file.read_text(encoding="utf-8"))
        return record if record["format"] == 1 else None
    except (ValueError, KeyError, TypeError) as error:
        raise UserError(f"{file} is damaged ({error}); export the student again, or delete it.") from error


def section(run: Path) -> list[Section]:
    """One section, or none if the run has no export."""
    record = read(run / FOLDER)
    if record is None:
        return []
    blocks: list[Block] = [
        summary(record),
        *test_sentences(record),
        quality(record),
        notes(record),
        cost(record),
        figure(record),
    ]
    return [Section("Export", blocks)]


def summary(record: Record) -> str:
    return f"{record['chosen']} ships. {record['reason']}"


def test_sentences(record: Record) -> list[str]:
    """One sentence with the test score; none without a test split."""
    test = record["test"]
    if test is None:
        return []
    drop, (low, high), where = test["drop_points"], test["drop_interval"], "below"
    if drop < 0:
        drop, low, high, where = -drop, -high, -low, "above"
    what = "sequences" if _language(record) else "rows"
    return [
        f"On {record['rows']['test']:,} test {what}, asked once, of {record['chosen']} alone: {record['score']} "
        f"{_score(record, test).text}, {_points(drop)} points {where} the student [{_points(low)}, {_points(high)}]."
    ]


def rows(record: Record) -> dict[str, Record]:
    """PyTorch first, then the variants in the order of the export."""
    return {"pytorch": record["pytorch"], **record["variants"]}


def quality(record: Record) -> Table:
    """The quality of each variant. Without labels, the score is the agreement with the student."""
    if _language(record):
        return export_language.quality(record, _titles(record))
    has_labels = record["labelled"]
    agrees = ["agrees with student"] if has_labels else []
    headers = [
        "on validation",
        "how",
        record["score"],
        "drop, points",
        *(f"{name}, drop" for name in _further(record["pytorch"])),
        *agrees,
        "with teacher",
        "other texts" if _writes(record) else "largest Δ",
        "in company",
        "",
    ]
    cells: list[Sequence[str | Value]] = []
    for name, row in rows(record).items():
        teacher = row["agreement_teacher"]
        with_teacher = "–" if teacher is None else _likeness(record, teacher)
        if name == "pytorch":
            own: list[str | Value] = [
                "–",
                *("–" for _ in (*_further(row), *agrees)),
                with_teacher,
                "–",
                _company(record, row),
                "",
            ]
        else:
            own = [
                _drop(row),
                *(_drop(each) for each in _further(row).values()),
                *(_likeness(record, row["agreement_student"]) for _ in agrees),
                with_teacher, _difference(record, row), _company(record, row), "pass" if row["passed"] else "FAIL",
            ]  # fmt: skip
        cells.append([BACKENDS.get(name, name), row["how"], _score(record, row), *own])
    return Table(headers, cells)


def cost(record: Record) -> Table:
    """Size, memory and times of each variant, and their shares of PyTorch's."""
    if _language(record):
        return export_language.cost(record, _titles(record))
    all_rows = rows(record)
    base = all_rows["pytorch"]
    lengths = list(base["latency_ms"])
    time_headers = [_at(length) for length in lengths] + ["ms a text, in batches"]
    headers = ["", "MB", "load, s", "peak memory, MB", *time_headers]
    cells: list[Sequence[str | Value]] = []
    for name, row in all_rows.items():
        times = [_times(row["latency_ms"][length], base["latency_ms"][length]) for length in lengths]
        size = Value(f"{row['megabytes']:.1f}", f"{row['megabytes'] / base['megabytes']:.2f} ×")
        title = BACKENDS.get(name, name)
        cells.append(
            [title, size, f"{row['load_seconds']:.2f}", f"{row['peak_rss_mb']:.0f}", *times, _batches(row, base)]
        )
    return Table(headers, cells)


def notes(record: Record) -> str:
    if _language(record):
        return export_language.notes(record)
    count = record["rows"]["validation"]
    writes = ""
    if _writes(record):
        writes = (
            f" A text is written greedily, with at most {record['max_new_tokens']} tokens. Other texts: the share that differs "
            "from the student's; in company: the share that is another text in a batch than alone."
        )
    slow = f" {record.get('cpu')} has no units for INT8, which gains more where there are some (VNNI, AMX)."
    threads = f"{record['threads']} thread{'s' if record['threads'] > 1 else ''}"
    return (
        f"{count:,} validation rows in batches of {record['batch_size']} texts, truncated to {record['max_length']} tokens."
        f"{writes} "
        f"A variant passes if it loses no more than {record['max_drop']:g} points; brackets are 95 % of paired bootstrap "
        "resamples. In company: how far the other texts of a batch move an answer. A variant whose answers move by more than "
        "rounding is served and measured text by text. Below: p50 / p95 / p99 milliseconds from token ids to the answer, one "
        f"text at a time, and the time of a text in batches, on {threads}. The variants were measured in turns; shares are of "
        "PyTorch fp32. Of the variants that pass, the one with the smallest geometric mean of p50 and time in batches ships. "
        f"Loading includes the start of Python and its imports.{slow if record.get('int8_units') is False else ''}"
    )


def figure(record: Record) -> Figure:
    """Draw size against median latency at the middle length, one curve a backend. Smaller and faster is down and left."""
    all_rows = rows(record)
    length = sorted(record["pytorch"]["latency_ms"], key=int)[len(record["pytorch"]["latency_ms"]) // 2]
    series = []
    for backend, title in _titles(record).items():
        own = sorted((row["megabytes"], _p50(row, length)) for row in all_rows.values() if row["backend"] == backend)
        if own:
            series.append(Series(title, [x for x, _ in own], [y for _, y in own]))
    best = all_rows[record["chosen"]]
    series.append(Series(f"ships: {record['chosen']}", [best["megabytes"]], [_p50(best, length)], [1.0]))
    title = f"size and latency, {length} tokens" if int(length) else "size and latency"
    numbers = Table(
        ["", "MB", "p50, ms"],
        [
            [_titles(record).get(name, name), f"{row['megabytes']:.1f}", f"{_p50(row, length):.2f}"]
            for name, row in all_rows.items()
            if name != "merged"  # the row of PyTorch again
        ],
    )
    return Figure(chart(title, series, Axis("MB", low=0), Axis("p50, ms", low=0)), title, numbers)


def _language(record: Record) -> bool:
    return record.get("kind") == LANGUAGE


def _titles(record: Record) -> Mapping[str, str]:
    """Of engines, and of the row that others are compared with: a language model has the precision of its folder."""
    return {**BACKENDS, "pytorch": f"merged, PyTorch {record['dtype']}"} if _language(record) else BACKENDS


def _writes(record: Record) -> bool:
    return record.get("kind") == "tokens"  # reports of before name no kind


def _at(length: str) -> str:
    """Students that write are timed on texts as they are: the time depends on what they write. 0: a whole answer."""
    return f"ms at {length} tokens" if int(length) else "ms a text, alone"


def _difference(record: Record, row: Record) -> str:
    return f"{row['max_difference']:.1%}" if _writes(record) else f"{row['max_difference']:.2g}"


def _further(row: Record) -> Mapping[str, Record]:
    """Other scores that count. A record of an older version has none."""
    further: Mapping[str, Record] = row.get("further", {})
    return further


def _drop(row: Record) -> Value:
    low, high = row["drop_interval"]
    return Value(_points(row["drop_points"]), f"[{_points(low)}, {_points(high)}]")


def _p50(row: Record, length: str) -> float:
    return row["latency_ms"][length]["p50"]


def _times(times: Mapping[str, float], base: Mapping[str, float]) -> Value:
    text = " / ".join(f"{times[p]:.1f}" for p in PERCENTILES)
    return Value(text, f"{times['p50'] / base['p50']:.2f} ×")


def _batches(row: Record, base: Record) -> str | Value:
    """A record of an older version has no time in batches."""
    if row.get("batch_ms") is None:
        return "–"
    return Value(f"{row['batch_ms']:.2f}", f"{row['batch_ms'] / base['batch_ms']:.2f} ×")


def _company(record: Record, row: Record) -> str:
    """The largest difference that the other texts of a batch cause: of a probability if there are any, else of an output."""
    company = row.get("company")
    if company is None:
        return "–"
    output, probability = company["max_difference"], company["max_probability_difference"]
    if _writes(record):
        return f"{output:.1%}" if company["independent"] else f"{output:.1%}: text by text"
    text = f"Δ {output:.1g}" if probability is None else f"Δp {probability:.1g}"
    return text if company["independent"] else f"{text}: text by text"


def _score(record: Record, row: Record) -> Value:
    form = _format(record)
    low, high = (form.format(end) for end in row["score_interval"])
    return Value(form.format(row["score"]), f"[{low}, {high}]")


def _likeness(record: Record, value: float) -> str:
    return _format(record).format(value)


def _format(record: Record) -> str:
    """The format of the score and of agreements. A record of an older version has no score_format."""
    return record.get("score_format", "{:.4f}" if record.get("problem") in ("regression", "embedding") else "{:.1%}")


def _points(value: float) -> str:
    return f"{value + 0.0:.2f}".replace("-0.00", "0.00")
