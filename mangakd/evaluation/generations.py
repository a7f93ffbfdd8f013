"""Texts that the models of a run have written to the same prompts: generations.jsonl in the run's folder, a line a prompt."""

import json
import math
import os
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from mangakd.core.errors import UserError

FILE = "generations.jsonl"
GREEDY, DRAWN = "greedy", "drawn"


@dataclass(frozen=True)
class Example:
    """context: passages that belong to the question."""

    question: str
    reference: str
    context: tuple[str, ...] = ()


@dataclass(frozen=True)
class Text:
    """scores: name → value, NaN where a score has no meaning."""

    text: str
    scores: Mapping[str, float]


@dataclass(frozen=True)
class Generation:
    """texts: model → way (GREEDY, DRAWN) → text."""

    example: Example
    texts: Mapping[str, Mapping[str, Text]]


def save(folder: Path, generations: Sequence[Generation]) -> None:
    """Write a scratch file and rename it. NaN, which JSON lacks, is null."""
    scratch = folder / f"{FILE}.partial"
    with scratch.open("w", encoding="utf-8") as stream:
        for each in generations:
            texts = {model: {way: _plain(text) for way, text in ways.items()} for model, ways in each.texts.items()}
            stream.write(json.dumps({"example": asdict(each.example), "texts": texts}, ensure_ascii=False) + "\n")
    os.replace(scratch, folder / FILE)


def _plain(text: Text) -> tuple[str, dict[str, float | None]]:
    return text.text, {name: None if math.isnan(value) else value for name, value in text.scores.items()}


def read(folder: Path) -> list[Generation]:
    """[] if the run has none. Raises UserError if the file is damaged."""
    file = folder / FILE
    if not file.is_file():
        return []
    try:
        with file.open(encoding="utf-8") as stream:
            return [_generation(line) for line in stream]
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise UserError(f"{file} is damaged ({error}); run again, or delete it.") from error


def _generation(line: str) -> Generation:
    row = json.loads(line)
    texts = {
        model: {
            way: Text(text, {name: math.nan if value is None else value for name, value in scores.items()})
            for way, (text, scores) in ways.items()
        }
        for model, ways in row["texts"].items()
    }
    example = row["example"]
    return Generation(Example(**{**example, "context": tuple(example["context"])}), texts)
