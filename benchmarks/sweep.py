"""What does a sweep save? Twelve points as one sweep, against twelve runs that are started one by one.

    python benchmarks/sweep.py [--rounds 1]

Both sides train the quickstart's student for one epoch at T = 1, 2, 4, 8 and alpha = 0.3, 0.5, 0.7 on the synthetic corpus, with
a teacher fine-tuned before the clock starts. The sweep is `python train.py -m …` as typed: one process, and the teacher's
answers are stored once. The others are `python train.py …` twelve times with a live teacher, from the same cache. Both sides must
end with the same validation scores, within what rounding of stored answers can turn (`--slack`, rows). CPU time of all
processes; rounds alternate the sides.
"""

from __future__ import annotations

import argparse
import itertools
import json
import os
import resource
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from importlib.metadata import version
from pathlib import Path

from results_file import table, write

ROOT = Path(__file__).resolve().parents[1]
TEMPERATURES, ALPHAS = (1, 2, 4, 8), (0.3, 0.5, 0.7)
ROWS = {"train": 2000, "val": 500, "test": 500}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=1)
    parser.add_argument(
        "--slack", type=int, default=5, help="validation rows by which two scores of a point may differ"
    )
    options = parser.parse_args()
    rounds = []
    with tempfile.TemporaryDirectory() as work:
        run(Path(work), "warm", "trainer.max_epochs=1")  # teacher and tokens
        for number in range(options.rounds):
            sides = {"sweep": as_sweep, "separate": one_by_one}
            for name in sorted(sides, reverse=bool(number % 2)):
                shutil.rmtree(Path(work) / "cache" / "stores", ignore_errors=True)  # each side asks the teacher itself
                start, before = time.perf_counter(), cpu()
                scores = sides[name](Path(work), f"{name}{number}")
                times = {"cpu_seconds": cpu() - before, "wall_seconds": time.perf_counter() - start}
                rounds.append({"side": name, "round": number, **times, "scores": scores})
                print(name, number, times, flush=True)
            report(rounds, options.slack)


def as_sweep(work: Path, name: str) -> dict[str, float]:
    values = ["-m", f"distill.temperature={join(TEMPERATURES)}", f"distill.alpha={join(ALPHAS)}"]
    run(work, name, *values, where="hydra.sweep.dir")
    return {p.parent.name: score(p.parent) for p in sorted((work / name).glob("*/metrics.json"))}


def one_by_one(work: Path, name: str) -> dict[str, float]:
    scores = {}
    for number, (t, alpha) in enumerate(itertools.product(TEMPERATURES, ALPHAS)):
        run(work, f"{name}/{number}", f"distill.temperature={t}", f"distill.alpha={alpha}")
        scores[str(number)] = score(work / name / str(number))
    return scores


def run(work: Path, name: str, *words: str, where: str = "hydra.run.dir") -> None:
    limits = [f"data.{split}_limit={rows}" for split, rows in ROWS.items()]
    overrides = [
        "hardware=cpu",
        "hardware.batch_size=32",
        "trainer.max_epochs=1",
        "teacher.fit.epochs=3",
        *limits,
        *words,
    ]
    env = {**os.environ, "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1", "OMP_WAIT_POLICY": "PASSIVE"}
    command = [sys.executable, "train.py", *overrides, f"{where}={work / name}", f"paths.cache={work / 'cache'}"]
    subprocess.run(command, cwd=ROOT, env=env, check=True, stdout=subprocess.DEVNULL)


def score(folder: Path) -> float:
    return json.loads((folder / "metrics.json").read_text())["val/accuracy"]


def join(values: tuple[float, ...]) -> str:
    return ",".join(map(str, values))


def cpu() -> float:
    """Seconds of user and system time of all processes that have ended."""
    usage = resource.getrusage(resource.RUSAGE_CHILDREN)
    return usage.ru_utime + usage.ru_stime


def report(rounds: list[dict], slack: int) -> None:
    medians = {
        (side, what): statistics.median(one[what] for one in rounds if one["side"] == side)
        for side in ("sweep", "separate")
        for what in ("cpu_seconds", "wall_seconds")
    }
    one, other = (next(run["scores"] for run in rounds if run["side"] == side) for side in ("sweep", "separate"))
    apart = max(abs(one[point] - other[point]) for point in other) * ROWS["val"]
    if len(one) != len(other) or apart > slack:
        raise SystemExit(f"the sides did not train the same: {apart:.0f} validation rows apart\n{one}\n{other}")
    rows = [
        [side, f"{medians[side, 'cpu_seconds'] / 60:.1f}", f"{medians[side, 'wall_seconds'] / 60:.1f}"]
        for side in ("sweep", "separate")
    ]
    ratio = medians["sweep", "cpu_seconds"] / medians["separate", "cpu_seconds"]
    body = table(["twelve points as", "CPU minutes", "minutes"], rows)
    body += f"\n\nSweep / separate: **{ratio:.2f}** of the CPU time. "
    body += f"Scores of a point at most {apart:.0f} of {ROWS['val']} validation rows apart."
    versions = {package: version(package) for package in ("torch", "lightning", "transformers")}
    write("sweep", "A sweep of twelve", {"versions": versions, "rounds": rounds, "ratio": ratio}, body)


if __name__ == "__main__":
    main()
