"""Answers that were prepared, in place of a model's: what a form makes of them is what the tests are about."""

import contextlib
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from mangakd.labelling.forms import Form
from mangakd.labelling.label import Options, label, read_prompts
from mangakd.labelling.provider import Answer, Provider, Request
from mangakd.models.generation import Sampling

Objects = list[dict[str, Any]]


class Prepared(Provider):
    """Gives the answers in their order, `batch` at a time. stop: after so many answers the process is killed."""

    def __init__(self, answers: Sequence[Answer | str], batch: int = 2, stop: int | None = None) -> None:
        self._answers = [Answer(each, "ended", 3) if isinstance(each, str) else each for each in answers]
        self._batch, self._stop = batch, stop
        self.requests: list[Request] = []

    @property
    def identity(self) -> Mapping[str, Any]:
        return {"provider": "prepared", "model": "m"}

    def answers(
        self, requests: Sequence[Request], sampling: Sampling, done: int, advance: Callable[[int], object]
    ) -> Iterator[Sequence[Answer]]:
        assert len(requests) == len(self._answers)
        for start in range(done, len(requests), self._batch):
            if self._stop is not None and start + self._batch > self._stop:
                raise KeyboardInterrupt
            part = slice(start, start + self._batch)
            self.requests += requests[part]
            yield self._answers[part]


@contextlib.contextmanager
def no_bar(title: str, total: int) -> Iterator[Callable[[int], object]]:
    yield lambda rows: None


def lines(file: Path) -> Objects:
    return [json.loads(line) for line in file.read_text().splitlines()] if file.is_file() else []


def labelled(folder: Path, form: Form, rows: Objects, provider: Provider, **options: Any) -> tuple[Objects, Objects]:
    """What label writes: the rows, and those that are unusable."""
    source, out = folder / "rows.jsonl", folder / "out.jsonl"
    source.write_text("\n".join(map(json.dumps, rows)))
    sampling = options.pop("sampling", Sampling())
    read = read_prompts(str(source), {}, form)
    label(read, provider, Options(sampling, form=form, **options), out, folder / "cache", no_bar, source)
    return lines(out), lines(folder / "out.jsonl.unusable.jsonl")
