"""A judge scores rows by a rubric: what stays, what it agrees with, and that no verdict is asked for twice."""

import contextlib
import json
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest

from mangakd.core.errors import UserError
from mangakd.labelling.curate.curate import Options, curate
from mangakd.labelling.curate.filters.duplicates import Duplicates
from mangakd.labelling.curate.filters.length import Length
from mangakd.labelling.curate.filters.personal_data import PersonalData
from mangakd.labelling.curate.flow import Verdict
from mangakd.labelling.curate.judge import Judge, Rubric, score_in
from mangakd.labelling.curate.record import Record
from mangakd.labelling.curate.source import Reading
from mangakd.labelling.provider import Answer, Provider, Request
from mangakd.models.sampling import Sampling


class Counter(Provider):
    """Scores an answer by the number of its words, two requests at a time. breaks: after as many requests it dies."""

    def __init__(self, breaks: int | None = None, fails: Sequence[str] = ()) -> None:
        self._breaks, self._fails = breaks, fails
        self.asked: list[str] = []

    @property
    def identity(self) -> Mapping[str, Any]:
        return {"provider": "test", "model": "counter"}

    def answers(
        self, requests: Sequence[Request], sampling: Sampling, done: int, advance: Callable[[int], object]
    ) -> Iterator[Sequence[Answer]]:
        for start in range(done, len(requests), 2):
            if self._breaks is not None and len(self.asked) >= self._breaks:
                raise KeyboardInterrupt
            part = [request.prompt[-1][1] for request in requests[start : start + 2]]
            self.asked += part
            advance(len(part))
            yield [self._answer(text) for text in part]

    def _answer(self, prompt: str) -> Answer:
        match = re.search(r"Answer:\n(.*)\n", prompt)
        assert match
        if any(word in prompt for word in self._fails):
            return Answer("", "failed", 0)
        return Answer(f"Score: {len(match[1].split())}", "ended", 3)


@contextlib.contextmanager
def no_bar(title: str, total: int) -> Iterator[Callable[[int], object]]:
    yield lambda rows: None


ROWS = [
    {"prompt": f"question {i}?", "answer": " ".join(f"w{i}{place}" for place in range(1 + i % 6))} for i in range(24)
] + [
    {"prompt": "question 4?", "answer": "W40 w41 w42 w43 w44"},
    {"prompt": "mail?", "answer": "write to me at a@example.com"},
]
# Scores 1 to 5 in turn, each sixth row has 6 words, which is no score of the scale; row 25 repeats row 5; row 26 scores 5.


def run(folder: Path, provider: Provider, out: str = "out", **rubric: Any) -> dict[str, Any]:
    file = folder / "answers.jsonl"
    file.write_text("".join(json.dumps(row) + "\n" for row in ROWS))
    filters = {"length": Length(characters=[None, 100]), "duplicates": Duplicates(), "personal_data": PersonalData()}
    judge = Judge(provider, Rubric(**rubric), folder / "verdicts.jsonl")
    shares = {"train": 0.5, "val": 0.25, "test": 0.25}
    curate(str(file), folder / out, Options(Reading(), filters, [], shares, judge), folder / "cache", no_bar)
    return json.loads((folder / out / "curated.json").read_text())  # type: ignore[no-any-return]


def left_out(folder: Path) -> dict[int, str]:
    rows = [json.loads(line) for line in (folder / "out" / "left_out.jsonl").read_text().splitlines()]
    return {row["number"]: row["detail"] for row in rows if row["reason"] == "judge"}


def test_rows_below_the_threshold_are_left_out(tmp_path: Path) -> None:
    provider = Counter()
    manifest = run(tmp_path, provider)
    expected = {
        i + 1: "no score" if i % 6 == 5 else f"score {1 + i % 6}, 4 stays" for i in range(24) if i % 6 not in (3, 4)
    }
    assert left_out(tmp_path) == expected
    assert manifest["judge"]["stays"] == [9, 12, 4] and manifest["judge"]["falls"] == [1, 0, 0]
    assert len(provider.asked) == 26, "25 rows that pass, and the one that the filters left out"
    assert not any("a@example.com" in prompt for prompt in provider.asked), "a judge sees placeholders"
    card = (tmp_path / "out" / "README.md").read_text()
    assert "| pass the filters | 9 | 12 | 4 |" in card and "| are left out by them (a sample) | 1 | 0 | 0 |" in card
    assert "model `counter`" in card and "Agreement of judge and filters, the mean of both groups: 18.0%" in card


def test_agreement_by_hand() -> None:
    """Of 10 rows that pass the judge likes 8; of 5 that are left out it dislikes 3 and has no score for 1: (0.8 + 0.8) / 2."""
    assert Verdict([8, 1, 1], [1, 3, 1]).agreement == pytest.approx(0.8)
    assert Verdict([8, 1, 1], [0, 0, 0]).agreement is None


def test_verdicts_are_asked_for_once(tmp_path: Path) -> None:
    """A command that is stopped keeps its verdicts, also for other filters and thresholds; half a line is removed."""
    first = Counter(breaks=10)
    with pytest.raises(KeyboardInterrupt):
        run(tmp_path, first)
    file = tmp_path / "verdicts.jsonl"
    assert len(file.read_text().splitlines()) == 10 and not (tmp_path / "out").exists()
    with file.open("a") as stream:
        stream.write('{"key": "half')
    second = Counter()
    run(tmp_path, second)
    assert len(second.asked) == 16 and not set(first.asked) & set(second.asked)
    third = Counter()
    manifest = run(tmp_path, third, "other", keep=2)
    assert third.asked == [] and manifest["judge"]["stays"] == [17, 4, 4]


def test_a_provider_that_fails_leaves_no_folder(tmp_path: Path) -> None:
    with pytest.raises(
        UserError, match=r"the judge failed on 1 of 26 rows; the other verdicts are in .*verdicts.jsonl"
    ):
        run(tmp_path, Counter(fails=["question 7?"]))
    assert not (tmp_path / "out").exists()
    again = Counter()
    run(tmp_path, again)
    assert len(again.asked) == 1 and "question 7?" in again.asked[0]


@pytest.mark.parametrize(
    ("text", "score"),
    [
        ("4", 4.0),
        ("Score: 3", 3.0),
        ("4.5", 4.5),
        ("3/5", 3.0),
        ('{"score": 2, "why": "1 mistake"}', 2.0),
        ("**Score** 5", 5.0),
        ("9", None),
        ("3fa9", None),
        ("good", None),
        ("", None),
        ("It has 2 errors. Score: 4", 4.0),
    ],
)
def test_the_score_in_an_answer(text: str, score: float | None) -> None:
    assert score_in(text, (1, 5)) == score


def test_a_template_of_ones_own(tmp_path: Path) -> None:
    file = tmp_path / "rubric.jinja"
    file.write_text("{{ row.system }}: {{ answer }}? {{ least }}-{{ most }}")
    judge = Judge(Counter(), Rubric(str(file), scale=(0, 10), keep=7), tmp_path / "v.jsonl")
    assert judge.prompt(Record(1, {"system": "be kind"}, "p", "a {{ b }}")) == "be kind: a {{ b }}? 0-10"
    with pytest.raises(UserError, match=r"judge.template=.*'dict object' has no attribute 'system'"):
        judge.prompt(Record(1, {}, "p", "a"))
    file.write_text("{{ prompt }}")
    with pytest.raises(UserError, match=r"shows no answer: write \{\{ answer \}\}"):
        Rubric(str(file))
    with pytest.raises(UserError, match=r"judge.keep=9 must be in judge.scale=\[1, 5\]"):
        Rubric(keep=9)
    with pytest.raises(UserError, match=r"judge.template=.*there is no such file"):
        Rubric(str(tmp_path / "none.jinja"))
