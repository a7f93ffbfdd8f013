"""Time, memory and size of variants, each in a process of its own.

    prompt     tokens a second: a prompt of PROMPT tokens, with the first token after it
    generation tokens a second: the tokens after the first one
    first      milliseconds until the first token of that prompt, p50 and p95
    answer     milliseconds of prompt and NEW tokens; compares variants

The processes are open at once and measured in turns, the order reversed each round, so that background load affects all of them.
Rates are of the fastest runs; percentiles are of all runs.
Where their models together would take more than half of the memory, one is opened after the other.
"""

import contextlib
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from mangakd.export.language.process import EngineProcess
from mangakd.export.language.variants import open_variant

PROMPT, NEW = 128, 64  # tokens
TURNS, RUNS = 5, 4  # rounds; prompts of a round
_SHARE = 0.5  # of the memory


@dataclass(frozen=True)
class Speed:
    """megabytes: of the folder on disk. first_ms, answer_ms: percentile → milliseconds. prompt, new: tokens of the
    measurement."""

    megabytes: float
    load_seconds: float
    peak_rss_mb: float
    prompt_per_second: float
    tokens_per_second: float
    first_ms: dict[str, float]
    answer_ms: dict[str, float]
    prompt: int
    new: int


@dataclass(frozen=True)
class Times:
    """Seconds of one engine. first: until the first token. whole: of the answer."""

    first: list[float]
    whole: list[float]


def measure(
    folders: Sequence[Path],
    ids: Sequence[int],
    context: int,
    progress: Callable[[str], None] = lambda name: None,
    turns: int = TURNS,
) -> list[Speed]:
    """Measure finished variants; returns results in their order. ids: tokens of texts, of which the prompt is made.

    context: tokens of prompt and answer; both are shorter in a small one. progress: called with what is measured next.
    """
    new = max(2, min(NEW, context // 3))
    prompt = np.resize(np.array(ids), max(1, min(PROMPT, context - new - 1))).tolist()
    speeds: list[Speed] = []
    for group in groups(folders):
        with contextlib.ExitStack() as stack:
            engines = []
            for folder in group:
                progress(f"speed of {folder.name}")
                engines.append(stack.enter_context(open_variant(folder)[1]))
            times = _in_turns(engines, prompt, new, turns)
            sizes = [_megabytes(folder) for folder in group]
            speeds += [_speed(*each, len(prompt), new) for each in zip(engines, sizes, times, strict=True)]
    return speeds


def groups(folders: Sequence[Path]) -> list[list[Path]]:
    """What is opened at once: all, or each alone where memory is short."""
    memory = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") / 1e6
    together = sum(map(_megabytes, folders)) <= _SHARE * memory
    return [list(folders)] if together else [[folder] for folder in folders]


def _in_turns(engines: Sequence[EngineProcess], prompt: list[int], new: int, turns: int) -> list[Times]:
    times = [Times([], []) for _ in engines]
    for engine in engines:
        engine.seconds(prompt, 2)  # caches hold another model before
    for turn in range(turns):
        for i in range(len(engines))[:: 1 if turn % 2 == 0 else -1]:
            times[i].first.extend(engines[i].seconds(prompt, 1)[0] for _ in range(RUNS))
            times[i].whole.append(engines[i].seconds(prompt, new)[0])
    return times


def _speed(engine: EngineProcess, megabytes: float, times: Times, prompt: int, new: int) -> Speed:
    first, whole = np.array(times.first), np.array(times.whole)
    read, written = rates(times, prompt, new)
    return Speed(
        megabytes, engine.load_seconds, engine.peak_rss_mb, read, written, _percentiles(first), _percentiles(whole), prompt, new
    )  # fmt: skip


def rates(times: Times, prompt: int, new: int) -> tuple[float, float]:
    """Tokens a second of prompt and generation, of the fastest runs.

    Background load only adds time. Medians of few runs on a busy machine can make a whole answer faster than its first token. If
    even the fastest answer is, the rate is that of the whole answer, which is too low.
    """
    first, whole = min(times.first), min(times.whole)
    return prompt / first, (new - 1) / (whole - first) if whole > first else new / whole


def _percentiles(seconds: np.ndarray) -> dict[str, float]:
    return {f"p{percent}": float(np.percentile(seconds, percent) * 1000) for percent in (50, 95, 99)}


def _megabytes(folder: Path) -> float:
    return sum(file.stat().st_size for file in folder.rglob("*") if file.is_file()) / 1e6
