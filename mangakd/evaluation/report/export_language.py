"""The tables of an exported language model, from the same record as those of other students (export.py)."""

from collections.abc import Mapping, Sequence
from typing import Any

from mangakd.evaluation.report.blocks import Table, Value

Record = Mapping[str, Any]
MERGED = "pytorch"  # the row of the merged folder, also where it is a variant


def quality(record: Record, names: Mapping[str, str]) -> Table:
    """How well each variant predicts the same tokens. names: of variants → titles."""
    headers = [
        "on validation", "how", "perplexity", "× merged", "KL, nats", record["score"], "drop, points", "agrees with merged",
        "greedy texts", "",
    ]  # fmt: skip
    cells: list[Sequence[str | Value]] = []
    for name, row in _rows(record):
        first = [names.get(name, name), row["how"], f"{row['perplexity']:.3f}"]
        right = _with(f"{row['score']:.1%}", row["score_interval"], "{:.1%}")
        if name == MERGED:
            cells.append([*first, "–", "–", right, "–", "–", "–", ""])
            continue
        cells.append(
            [
                *first, _with(f"{row['perplexity_ratio']:.4f}", row["ratio_interval"], "{:.4f}"),
                _with(f"{row['kl']:.4f}", row["kl_interval"], "{:.4f}"), right,
                _with(_points(row["drop_points"]), row["drop_interval"], "{:.2f}"), f"{row['agreement_student']:.1%}",
                greedy(row), "pass" if row["passed"] else "FAIL",
            ]
        )  # fmt: skip
    return Table(headers, cells)


def cost(record: Record, names: Mapping[str, str]) -> Table:
    """Size, memory and speed of each variant, and their shares of the merged folder's in PyTorch."""
    base = record[MERGED]
    headers = [
        "", "MB", "load, s", "peak memory, MB", "prompt, tokens/s", "generation, tokens/s", "first token, ms", "answer, ms",
    ]  # fmt: skip
    cells: list[Sequence[str | Value]] = []
    for name, row in _rows(record):
        cells.append(
            [
                names.get(name, name), _share(row, base, "megabytes", "{:.1f}"), f"{row['load_seconds']:.2f}",
                f"{row['peak_rss_mb']:.0f}", _share(row, base, "prompt_per_second", "{:.1f}"),
                _share(row, base, "tokens_per_second", "{:.1f}"), _percentiles(row["first_ms"]), _percentiles(row["answer_ms"]),
            ]
        )  # fmt: skip
    return Table(headers, cells)


def notes(record: Record) -> str:
    count, threads = record["rows"]["validation"], record["threads"]
    return (
        f"{record['tokens']:,} answer tokens of {count:,} validation sequences, each predicted after the true tokens before it; "
        f"log-probabilities are each engine's own. KL(merged ‖ variant) is of the {record['top']} most probable tokens of "
        "both, with all others as one: at most the KL of the whole distributions. Greedy texts: how many of the prompts are "
        "continued as by the merged folder; a text may leave it only at a token where the merged folder is undecided, by the "
        f"nats in brackets at most. A variant passes if its perplexity is at most {record['max_perplexity_ratio']:g} × the "
        f"merged folder's and it does not lose more than {record['max_drop']:g} points of right tokens for certain; brackets "
        f"are 95 % of paired bootstrap resamples of the sequences. Speed: a prompt of {record['prompt']} tokens and "
        f"{record['new']} new ones, one question at a time, on {threads} thread{'s' if threads > 1 else ''}, all variants in "
        f"turns; shares are of the merged folder in PyTorch ({record['dtype']}). Of the variants that pass, the one with the "
        "shortest answer time ships; within 5 %, the smallest."
    )


def _rows(record: Record) -> list[tuple[str, Record]]:
    return [(MERGED, record[MERGED]), *((name, row) for name, row in record["variants"].items() if name != "merged")]


def greedy(row: Record) -> str:
    """A gap of None: an engine ended a text where the other one went on."""
    parity = row["parity"]
    if not parity:
        return "–"
    gap = "∞" if parity["largest_gap"] is None else f"{parity['largest_gap']:.2f}"
    return f"{parity['equal']} of {parity['prompts']} ({gap})"


def _share(row: Record, base: Record, key: str, form: str) -> Value:
    return Value(form.format(row[key]), f"{row[key] / base[key]:.2f} ×")


def _percentiles(times: Mapping[str, float]) -> str:
    return f"{times['p50']:.1f} / {times['p95']:.1f}"


def _with(text: str, interval: Sequence[float], form: str) -> Value:
    low, high = (form.format(end + 0.0) for end in interval)
    return Value(text, f"[{low}, {high}]")


def _points(value: float) -> str:
    return f"{value + 0.0:.2f}".replace("-0.00", "0.00")
