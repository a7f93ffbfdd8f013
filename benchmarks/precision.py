"""Does bf16 cost quality on a CPU with bf16 units? The same run of CLINC150 in fp32 and in bf16, over seeds.

    python benchmarks/precision.py --data ../shared/data/clinc150/data_full.json --work PATH [--seeds 0 1 2]

A tenth of the labels, the other texts labelled by the teacher, three of MiniLM's layers as the student: everything that
`hardware.precision` changes is in it (fine-tuning the teacher, the teacher's answers, distillation). Each run is made from
nothing, in a process of its own. A run that ended is in results/precision.json and is not made again.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
from quickstart import AGREEMENT, MINUTES, STUDENT, TEACHER, chance, runs, scores, tables, train, versions
from results_file import write
from scipy import stats

RUN = [
    "data=clinc150", "data.labelled_share=0.1", "teacher=cached", "teacher.fit.epochs=10", "distill.temperature=1",
    "+stages.distil.texts=[labelled,unlabelled]", "trainer.max_epochs=1", "hardware=cpu", "hardware.batch_size=32",
]  # fmt: skip
PRECISIONS = ("32-true", "bf16-mixed")
COLUMNS = {"teacher": TEACHER, "student": STUDENT, "agreement": AGREEMENT, "CPU minutes": MINUTES}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="CLINC150's data_full.json")
    parser.add_argument("--work", type=Path, required=True, help="folder for the runs and their caches")
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2])
    options = parser.parse_args()
    for seed in options.seeds:
        for precision in PRECISIONS:
            name = f"{precision}_{seed}"
            if name not in runs("precision"):
                folder = options.work / name
                overrides = [
                    *RUN,
                    *chance(seed),
                    f"data.path={options.data.resolve()}",
                    f"hardware.precision={precision}",
                ]
                row = {
                    "side": precision,
                    "seed": seed,
                    "cpu_seconds": train(overrides, folder, {}),
                    "scores": scores(folder),
                }
                rows = dict(sorted({**runs("precision"), name: row}.items()))
                write("precision", "bf16 and fp32 on a CPU", {"versions": versions(), "runs": rows}, body(rows))


def body(rows: dict) -> str:
    both = sorted({row["seed"] for row in rows.values() if all(f"{p}_{row['seed']}" in rows for p in PRECISIONS)})
    gaps = {
        key: [100 * difference(rows, seed, key) for seed in both] for key in ("teacher/test/accuracy", "test/accuracy")
    }
    lines = [f"- {key}: {np.mean(gap):+.2f} points{interval(gap)}" for key, gap in gaps.items() if both]
    return (
        f"CLINC150, a tenth of the labels, test of 4,500 rows: `python train.py {' '.join(RUN)}`. Means over seeds, and the "
        f"lowest and highest seed.\n\n{tables(list(rows.values()), COLUMNS)}\n\nbf16-mixed minus 32-true, paired by seed:\n\n"
        + "\n".join(lines)
    )


def difference(rows: dict, seed: int, key: str) -> float:
    fp32, bf16 = (rows[f"{precision}_{seed}"]["scores"][key] for precision in PRECISIONS)
    return bf16 - fp32


def interval(values: list[float]) -> str:
    """95 % of Student's t over seeds."""
    if len(values) < 2:
        return ""
    low, high = stats.t.interval(0.95, len(values) - 1, np.mean(values), stats.sem(values))
    return f" [{low:+.2f}, {high:+.2f}], {len(values)} seeds"


if __name__ == "__main__":
    main()
