"""What do the filters of `mangakd curate` find and miss on planted sets, and what do they cost?

    python benchmarks/curate.py [--count 200] [--rows 1000 10000 50000]

Writes results/curate.md and .json. The planted sets are made here, by a seed: curate_personal.py and curate_texts.py. The cost is
that of a process which runs the command on rows of 60 words, a tenth of them with personal data.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import results_file
from curate_personal import Planted, innocent, jp_phone, planted, unlabelled
from curate_texts import ANSWERS, LANGUAGES, REFUSALS, joined, near_copies, overlaps, words
from omegaconf import OmegaConf

from mangakd.labelling.curate.extras import versions
from mangakd.labelling.curate.filters.base import Filter
from mangakd.labelling.curate.filters.language import Language
from mangakd.labelling.curate.filters.near_duplicates import NearDuplicates
from mangakd.labelling.curate.filters.overlap import Overlap
from mangakd.labelling.curate.filters.personal_data import PersonalData
from mangakd.labelling.curate.filters.refusals import Refusals
from mangakd.labelling.curate.record import Record
from mangakd.shop.manga_answers import make_split

REPO = Path(__file__).resolve().parents[1]
Table = list[tuple[str, ...]]
BANDS = ((0.9, 1.01), (0.85, 0.9), (0.8, 0.85), (0.75, 0.8), (0.7, 0.75), (0.0, 0.7))


def record(number: int, row: Mapping[str, Any]) -> Record:
    return Record(number, row, row["prompt"], row["answer"])


def clean(personal: PersonalData, case: Planted) -> bool:
    """Whether no digit and no @ of the value is left, and the rest of the text is as it was."""
    before, _, after = case.text.partition(case.value)
    text = personal.text(case.text)
    middle = text.removeprefix(before).removesuffix(after)
    return text.startswith(before) and text.endswith(after) and middle.startswith("<") and middle.endswith("_1>")


def personal_tables(count: int) -> tuple[dict[str, list[int]], dict[str, list[int]]]:
    """group → [found, all], and group → [taken for personal data, all]."""
    personal = PersonalData()
    recall, alarms = dict[str, list[int]](), dict[str, list[int]]()
    for case in [*planted(count), *unlabelled(count)]:
        add(recall, case.group, clean(personal, case))
    for case in innocent(count):
        add(alarms, case.group, personal.text(case.text) != case.text)
    return recall, alarms


def add(table: dict[str, list[int]], group: str, hit: bool) -> None:
    row = table.setdefault(group, [0, 0])
    row[0] += hit
    row[1] += 1


def shingles(text: str, size: int) -> set[str]:
    from mangakd.labelling.curate.filters.duplicates import normalised

    text = normalised(text)
    return {text[i : i + size] for i in range(len(text) - size + 1)}


def near_table(count: int) -> dict[str, list[int]]:
    """Band of the true Jaccard similarity to the first copy → [left out, all]; and rows without a copy."""
    near, table, firsts = NearDuplicates(), dict[str, list[int]](), dict[str, set[str]]()
    for i, case in enumerate(near_copies(count)):
        row = record(i, case.row)
        hit = near.reason(row) is not None
        own = shingles(row.text, near.size)
        if case.row["prompt"] in firsts:
            first = firsts[case.row["prompt"]]
            share = len(own & first) / len(own | first)
            low, high = next(band for band in BANDS if band[0] <= share < band[1])
            add(table, f"similarity {low:.2f} to {min(high, 1):.2f}", hit)
        else:
            add(table, "rows without a copy", hit)
            firsts[case.row["prompt"]] = own
    return dict(sorted(table.items(), reverse=True))


def overlap_table(count: int, folder: Path) -> dict[str, list[Any]]:
    """Group → [left out, all, whether it should be]."""
    tests, cases = overlaps(count)
    file = folder / "tests.jsonl"
    file.write_text("".join(json.dumps(each) + "\n" for each in tests))
    overlap, table = Overlap(evaluation=[str(file)]), dict[str, list[Any]]()
    for i, case in enumerate(cases):
        add(table, case.group, overlap.reason(record(i, case.row)) is not None)
        if len(table[case.group]) == 2:
            table[case.group].append(case.copy)
    return table


def refusals() -> Refusals:
    config = OmegaConf.load(REPO / "conf" / "curate.yaml")
    return Refusals(OmegaConf.to_container(config.filters.refusals.patterns))  # type: ignore[arg-type]


def answers_table() -> dict[str, list[int]]:
    """Refusals, answers that are none, and each language: [left out, all]."""
    table = dict[str, list[int]]()
    groups: list[tuple[str, Filter, Iterable[str]]] = [
        ("refusals", refusals(), REFUSALS),
        ("answers with an apology or a no", refusals(), ANSWERS),
        *((f"answers in {language}", Language(), texts) for language, texts in LANGUAGES.items()),
    ]
    for group, each, texts in groups:
        for text in texts:
            add(table, group, each.reason(Record(1, {}, "", text)) is not None)
    return table


def shop_table() -> dict[str, list[int]]:
    """What each filter takes of the package's own shop answers, which hold no personal data."""
    personal = PersonalData(action="leave_out")
    checks: Mapping[str, Callable[[Record], str | None]] = {
        "refusals": refusals().reason,
        "language": Language().reason,
        "personal data": personal.reason,
    }
    table = dict[str, list[int]]()
    for i, each in enumerate(make_split("train")):
        row = {"prompt": each.prompt, "answer": each.answer}
        for name, check in checks.items():
            add(table, name, check(record(i, row)) is not None)
    return table


def resident(pid: int) -> float:
    """The peak of a process's resident memory so far, in megabytes; 0 where it has ended."""
    try:
        status = Path(f"/proc/{pid}/status").read_text()
    except OSError:
        return 0.0
    lines = [line.split() for line in status.splitlines() if line.startswith("VmHWM")]
    return int(lines[0][1]) / 1024 if lines else 0.0


def cost(rows: int, folder: Path) -> dict[str, float]:
    """Seconds and peak memory of a process. stage: seconds of the filters and the files alone."""
    draw = random.Random(rows)
    file = folder / f"rows_{rows}.jsonl"
    with file.open("w") as stream:
        for i in range(rows):
            text = joined(words(draw, 60, i % 2 == 1), i % 2 == 1)
            text += f" {jp_phone(draw)}" if i % 10 == 0 else ""
            stream.write(
                json.dumps({"prompt": joined(words(draw, 12, i % 2 == 1), i % 2 == 1), "answer": text, "ended": True})
                + "\n"
            )
    program = [
        sys.executable,
        str(REPO / "scripts" / "curate.py"),
        f"data.path={file}",
        f"out={folder / f'out_{rows}'}",
    ]
    start = time.perf_counter()
    with (folder / "output.txt").open("w+") as output:
        child = subprocess.Popen([*program, f"paths.cache={folder / 'cache'}"], stdout=output, stderr=subprocess.STDOUT)
        peak, done = 0.0, 0
        while not done:  # ru_maxrss would be this process's own peak: a child begins in its memory
            peak = max(peak, resident(child.pid))
            time.sleep(0.2)
            done, status, usage = os.wait4(child.pid, os.WNOHANG)
        if status:
            raise SystemExit((folder / "output.txt").read_text())
    return {
        "rows": rows,
        "seconds": time.perf_counter() - start,
        "cpu": usage.ru_utime + usage.ru_stime,
        "peak_mb": peak,
        "file_mb": file.stat().st_size / 2**20,
    }


def shares(table: Mapping[str, Sequence[Any]], header: Sequence[str]) -> str:
    rows = [
        [group, f"{hits}", f"{every}", f"{hits / every:.1%}", *map(str, more)]
        for group, (hits, every, *more) in table.items()
    ]
    return results_file.table(header, rows)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--count", type=int, default=200)
    parser.add_argument("--rows", type=int, nargs="+", default=[1000, 10000, 50000])
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        recall, alarms = personal_tables(options.count)
        near, overlap = near_table(options.count), overlap_table(options.count, folder)
        answers, shop = answers_table(), shop_table()
        costs = [cost(rows, folder) for rows in options.rows]
    first, last = costs[0], costs[-1]
    a_thousand = (last["cpu"] - first["cpu"]) / (last["rows"] - first["rows"]) * 1000 if len(costs) > 1 else None
    body = "\n\n".join(
        [
            "Planted personal data, found and replaced as a whole. Half of the sentences are Japanese, without blanks around "
            "the value. The last four groups have no word that says what the value is.",
            shares(recall, ["kind", "found", "planted", "recall"]),
            "Numbers of a shop that are no personal data, taken for it:",
            shares(alarms, ["kind", "taken", "planted", "false positives"]),
            "Near duplicates: rows of 60 words and copies in which 0 to 30 words differ, by their true Jaccard similarity. The "
            "threshold is 0.8.",
            shares(near, ["rows", "left out", "all", "share"]),
            "Overlap with an evaluation set of 40-word prompts:",
            shares(overlap, ["rows that hold", "left out", "all", "share", "should be"]),
            "Answers. The patterns of refusals were written with these sentences in view, so other refusals will be missed:",
            shares(answers, ["answers", "left out", "all", "share"]),
            "The package's own shop answers (English, with prices, dates and order numbers, without personal data):",
            shares(shop, ["filter", "left out", "all", "share"]),
            "Cost of the command with all filters, on rows of 12 + 60 words. The first seconds and megabytes are imports.",
            results_file.table(
                ["rows", "file, MB", "CPU seconds", "seconds", "peak memory, MB"],
                [
                    [f"{each['rows']:,}", *(f"{each[key]:.0f}" for key in ("file_mb", "cpu", "seconds", "peak_mb"))]
                    for each in costs
                ],
            ),
            "" if a_thousand is None else f"**{a_thousand:.1f} CPU seconds for 1,000 rows** beyond the start.",
        ]
    )
    content = {
        "versions": versions(),
        "count": options.count,
        "recall": recall,
        "false_positives": alarms,
        "near_duplicates": near,
        "overlap": overlap,
        "answers": answers,
        "shop": shop,
        "cost": costs,
        "cpu_seconds_per_1000_rows": a_thousand,
    }
    print(results_file.write("curate", "mangakd curate: what its filters find, and what they cost", content, body))


if __name__ == "__main__":
    main()
