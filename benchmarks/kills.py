"""Kills real runs with SIGKILL at random steps, resumes them, and compares them with uninterrupted runs.

    python benchmarks/kills.py

A run is `python train.py … checkpoint.every_steps=5`, with 0 and 2 loader threads, on one process and on two (DDP, and FSDP2
once), with a live and a stored teacher. Models are tiny, so that starting takes longer than training. Each run is killed again
and again, at random moments of training, and resumed with `resume=auto`: its whole process tree, one rank, or only the
process that was started, whose ranks then have to leave by themselves. At its end every weight, projection and optimizer
state must have the bits of the uninterrupted run, and each epoch must have used every row once (kills_recorder.py).
Some runs also get SIGTERM, a damaged last.ckpt, or ranks that are slow to leave. Linux only.
"""

from __future__ import annotations

import argparse
import json
import math
import random
import re
import shutil
import tempfile
import textwrap
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, field
from itertools import product
from pathlib import Path

import lightning
import torch
from kills_check import differences, last_rows, wrong_rows
from kills_start import Blow, Broken, Start, strike
from kills_world import BATCH, TRAINED, settings
from results_file import table, write

EVERY = 5  # steps between checkpoints
LATEST = 0.75  # of a run's steps; aimed at later ones, a blow might come after the last
ALONE, TWO = ("process tree", "process"), ("process tree", "rank 1", "launcher", "rank 0")
TEACHERS = {
    "live": ("teacher=local", "losses=[hard_label,output,hidden]"),
    "stored": ("teacher=cached", "losses=[hard_label,output]"),  # a store has logits only
}
MORE = {
    "1 process, 0 workers, live": ("SIGTERM",),
    "1 process, 2 workers, live": ("truncated checkpoint",),
    "1 process, 2 workers, stored": ("SIGTERM",),
    "2 processes (ddp), 0 workers, live": ("SIGTERM", "slow ranks"),
    "2 processes (ddp), 2 workers, stored": ("slow ranks",),
    "2 processes (fsdp), 0 workers, live": ("overwritten checkpoint", "SIGTERM"),
}


@dataclass(frozen=True)
class Configuration:
    """words: for train.py. victims: of the kills, in turn. more: faults after the kills."""

    name: str
    ranks: int
    words: tuple[str, ...]
    victims: tuple[str, ...]
    more: tuple[str, ...]

    @property
    def slug(self) -> str:
        """A name for folders: Hydra would take the commas for lists."""
        return re.sub(r"\W+", "-", self.name)


def configurations() -> list[Configuration]:
    ways = [*product(("cpu", "cpu_ddp"), ("live", "stored"), (0, 2)), ("cpu_fsdp", "live", 0)]
    return [_configuration(*way) for way in ways]


def _configuration(hardware: str, teacher: str, workers: int) -> Configuration:
    alone = hardware == "cpu"
    where = "1 process" if alone else f"2 processes ({hardware.removeprefix('cpu_')})"
    name = f"{where}, {workers} workers, {teacher}"
    words = (f"hardware={hardware}", f"hardware.workers={workers}", *TEACHERS[teacher])
    return Configuration(name, 1 if alone else 2, words, ALONE if alone else TWO, MORE.get(name, ()))


@dataclass
class Result:
    """planned: number of faults. broken: why the run did not survive a fault. different, rows: differences at the end."""

    name: str
    planned: int
    steps: int
    blows: list[Blow] = field(default_factory=list)
    broken: str = ""
    different: list[str] = field(default_factory=list)
    rows: list[str] = field(default_factory=list)

    @property
    def good(self) -> bool:
        return not (self.broken or self.different or self.rows)


def measure(configuration: Configuration, folder: Path, kills: int, epochs: int, seed: int) -> Result:
    """Measure one configuration: an uninterrupted run and a killed run."""
    victims = [configuration.victims[i % len(configuration.victims)] for i in range(kills)]
    blows, ranks = [*victims, *configuration.more], configuration.ranks
    result = Result(configuration.name, len(blows), epochs * math.ceil(TRAINED / (BATCH * ranks)))
    often = (f"checkpoint.every_steps={EVERY}", f"trainer.max_epochs={epochs}", "resume=auto")
    words = [*settings(folder), *configuration.words, *often]
    starts: dict[str, list[Start]] = {"whole": [], "killed": []}

    def start(which: str) -> Start:
        place = folder / configuration.slug / which
        starts[which].append(Start(words, place, len(starts[which]), ranks, result.steps))
        return starts[which][-1]

    try:
        start("whole").finish()
        for blow in strike_all(blows, lambda: start("killed"), result.steps, random.Random(f"{seed} {result.name}")):
            result.blows.append(blow)
            print(f"  {len(result.blows)} of {len(blows)}: {blow.describe(result.steps)}", flush=True)
    except Broken as error:
        result.broken = str(error)
        print(f"  broken: {error}", flush=True)
        return result
    finally:
        for one in (*starts["whole"], *starts["killed"]):
            one.stop()
    whole, killed = starts["whole"][0], starts["killed"]
    result.different = differences(whole.run, killed[0].run)
    result.rows = list(wrong_rows(whole.rows, last_rows([one.rows for one in killed]), epochs))
    for wrong in (*result.different, *result.rows):
        print(f"  wrong: {wrong}", flush=True)
    return result


def strike_all(blows: list[str], start: Callable[[], Start], steps: int, chance: random.Random) -> Iterator[Blow]:
    """Start a run, apply each fault and resume, then let the run finish. Yields the faults."""
    run = start()
    for what, step in zip(blows, sorted(chance.sample(range(2 * EVERY, int(LATEST * steps)), len(blows))), strict=True):
        run.reach(step)
        blow, run = strike(what, run, start, chance)
        yield blow
    run.finish()


def measure_once(configuration: Configuration, folder: Path, kills: int, epochs: int, seed: int) -> Result:
    """Measure a configuration, or read the result of an earlier call from the folder."""
    file = folder / f"{configuration.slug}-{kills}-{epochs}-{seed}.json"
    if file.exists():
        content = json.loads(file.read_text())
        return Result(**{**content, "blows": [Blow(**blow) for blow in content["blows"]]})
    shutil.rmtree(folder / configuration.slug, ignore_errors=True)  # of a call that was stopped
    result = measure(configuration, folder, kills, epochs, seed)
    file.write_text(json.dumps(asdict(result)))
    return result


def verdicts(results: list[Result]) -> str:
    header = ("configuration", "survived", "of these SIGKILL", "steps done again", "bit-equal", "rows right")
    rows = []
    for result in results:
        killed = sum(blow.what != "SIGTERM" for blow in result.blows)
        again = f"{sum(blow.again for blow in result.blows)} of {result.steps}"
        end = ["–", "–"] if result.broken else ["no" if wrong else "yes" for wrong in (result.different, result.rows)]
        rows.append([result.name, f"{len(result.blows)} / {result.planned}", str(killed), again, *end])
    return table(header, rows)


def note(results: list[Result]) -> str:
    blows = [blow for result in results for blow in result.blows]
    kinds = ", ".join(f"{what} {times}" for what, times in Counter(blow.what for blow in blows).items())
    longest = max((blow.seconds for blow in blows if blow.what != "slow ranks"), default=0)
    counts = f"""{len(blows)} of {sum(result.planned for result in results)} blows survived: {kinds}.
{sum(result.good for result in results)} of {len(results)} configurations ended with the bits of the run that nobody killed
(weights, projections, optimizer, best epoch, exported student, scores) and with every row once an epoch, in the same steps."""
    explanation = f"""Steps done again are those after the last checkpoint, which was written every {EVERY} steps. A *process
tree* is killed at once. Of *rank 0* and *rank 1* the launcher has to say which one died, and bring
down the other. When the *launcher* is killed, the ranks have to leave by themselves, and the run is resumed before they have;
*slow ranks* cannot leave before the resumed run waits for them. Checkpoints are *truncated* or *overwritten* after a kill of
the tree. All processes of a run were gone after at most {longest:.0f} s, those of slow ranks aside."""
    return "\n\n".join(textwrap.fill(text, 120) for text in (counts, explanation))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--kills", type=int, default=4, help="of each configuration")
    parser.add_argument("--only", default="", help="configurations with this in their name; no result is written")
    parser.add_argument(
        "--epochs", type=int, default=3, help="of each run; an epoch has 101 steps, or 51 on two processes"
    )
    parser.add_argument("--seed", type=int, default=0, help="of when to kill")
    parser.add_argument(
        "--folder", type=Path, help="work here and keep it; what is measured there is not measured again"
    )
    options = parser.parse_args()
    results = []
    with tempfile.TemporaryDirectory() as scratch:
        folder = (options.folder or Path(scratch)).absolute()
        for configuration in configurations():
            if options.only in configuration.name:
                print(configuration.name, flush=True)
                results.append(measure_once(configuration, folder, options.kills, options.epochs, options.seed))
    print(verdicts(results))
    if not options.only:
        versions = {"torch": torch.__version__, "lightning": lightning.__version__}
        content = {"versions": versions, "configurations": [asdict(result) for result in results]}
        print(write("kills", "Runs that are killed and resumed", content, f"{verdicts(results)}\n\n{note(results)}"))
    if not results or not all(result.good for result in results):
        raise SystemExit("not all configurations survived")


if __name__ == "__main__":
    main()
