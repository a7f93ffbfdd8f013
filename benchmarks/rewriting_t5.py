"""The T5 of rewriting.py: random weights, and what it may learn before: to copy words, and to bring one back.

    input    a sentence                                             target    the sentence
    input    turns, and then a turn with a word of theirs as "it"   target    the last turn as it was

Without these, a T5 of 3 million random weights that learns 400 rewrites repeats a token until its text is cut. No rewrite of
people is read: the turns are those of the histories.
"""

from __future__ import annotations

import argparse
import json
import random
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from seed_runs import train

from mangakd.models import embedded_t5

WORD = re.compile(r"\w{4,}")
GONE = "it"
COMMON = 40  # a word that more turns have is no name of a thing


def t5_of(options: argparse.Namespace, files: Mapping[str, Path], cache: Path, sizes: Mapping[str, Any]) -> Path:
    """A T5 of random weights, or with --copies the one that learnt to copy."""
    made = embedded_t5.folder(texts_of(files), cache, sizes=sizes)
    if not options.copies:
        return made
    place, folders = cache / f"copies_{options.copies}", cache / f"copies_{options.copies}" / "teachers"
    if not any(folders.glob("*/config.json")):
        sentences = (options.data / "wiki" / "sentences.txt").read_text(encoding="utf-8").splitlines()
        rows = copy_rows(sentences, [row for name in ("train", "others") for row in lines(files[name])], options.copies)
        random.Random(0).shuffle(rows)
        cut = max(len(rows) // 50, 1)
        data = {"data.path": rows[2 * cut :], "data.val_path": rows[:cut], "data.test_path": rows[cut : 2 * cut]}
        words = [f"{key}={write_lines(options.work / f'copies_{key}.jsonl', own)}" for key, own in data.items()]
        words += [
            "task=rewrite",
            "data=files",
            f"data.max_length={options.length}",
            "task.generate=0",
            f"paths.cache={place}",
        ]
        words += [
            "task.max_target_length=96",
            f"teacher.path={made}",
            "teacher.fit.mode=always",
            "teacher.fit.epochs=3",
        ]
        words += [
            "teacher.fit.lr=1e-3",
            "hardware=cpu",
            "hardware.batch_size=16",
            "hardware.accumulate=1",
            "student=t5_tiny",
        ]
        train(place / "run", words, "scripts/cache_teacher.py", options.source)
    return next(folders.glob("*/config.json")).parent


def texts_of(files: Mapping[str, Path]) -> list[str]:
    """What embedded_t5's tokenizer is trained on."""
    own = [row["rewrite"] for row in lines(files["train"])]
    rows = [row for name in ("train", "others") for row in lines(files[name])]
    return own + [turn for row in rows for turn in (*row.get("history", []), row["utterance"])]


def write_lines(file: Path, rows: Iterable[Mapping[str, Any]]) -> Path:
    file.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows), encoding="utf-8")
    return file


def lines(file: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in file.read_text(encoding="utf-8").splitlines()]


def copy_rows(sentences: Sequence[str], rows: Iterable[Mapping[str, Any]], count: int) -> list[dict[str, Any]]:
    """`count` sentences, drawn at random, and the turns of the rows' conversations with a word left out."""
    drawn = random.Random(0).sample(sentences, min(count, len(sentences)))
    each = [{"input": sentence, "target": sentence} for sentence in drawn]
    return [
        *each,
        *({"history": [*history], "utterance": text, "rewrite": turn} for history, text, turn in cut_turns(rows)),
    ]


def cut_turns(rows: Iterable[Mapping[str, Any]]) -> Iterator[tuple[tuple[str, ...], str, str]]:
    """(the turns before, a turn without one of their words, the turn), once for each different turn in its conversation."""
    every = {tuple(row["history"][: i + 1]): None for row in rows for i in range(len(row.get("history", [])))}
    counts: dict[str, int] = {}
    for turn in {turns[-1] for turns in every}:
        for word in {*WORD.findall(turn.lower())}:
            counts[word] = counts.get(word, 0) + 1
    for *history, turn in every:
        before = {word for text in history for word in WORD.findall(text.lower())}
        shared = [word for word in WORD.findall(turn) if word.lower() in before and counts[word.lower()] <= COMMON]
        if shared:
            gone = max(shared, key=len)
            yield tuple(history), re.sub(rf"\b{re.escape(gone)}\b", GONE, turn), turn
