"""Runs the filters and the judge over a file: which rows stay, with which cells, and why the others do not."""

import random
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from mangakd.data.rows import strata
from mangakd.data.token_files import Progress
from mangakd.labelling.curate.filters.base import Filter
from mangakd.labelling.curate.filters.personal_data import PersonalData
from mangakd.labelling.curate.judge import Judge
from mangakd.labelling.curate.record import Record
from mangakd.labelling.curate.source import Source

JUDGE = "judge"
BATCH = 200  # rows between two moves of the progress bar


@dataclass
class Verdict:
    """What the judge and the filters say of the same rows. stays, falls: rows that filters let pass, and that they left out.

    Each: [from the threshold on, below it, without a score].
    """

    stays: list[int] = field(default_factory=lambda: [0, 0, 0])
    falls: list[int] = field(default_factory=lambda: [0, 0, 0])

    @property
    def agreement(self) -> float | None:
        """The mean over both groups of the share of rows on which judge and filters agree; None without rows of both."""
        if not sum(self.stays) or not sum(self.falls):
            return None
        return (self.stays[0] / sum(self.stays) + (self.falls[1] + self.falls[2]) / sum(self.falls)) / 2


@dataclass
class Selection:
    """left_out: position of a row → name of its filter, and the detail. cells: of rows that placeholders changed.

    scores: of rows that the judge scored and that stay.
    """

    source: Source
    filters: Mapping[str, Filter]
    judge: Judge | None = None
    left_out: dict[int, tuple[str, str]] = field(default_factory=dict)
    cells: dict[int, Mapping[str, Any]] = field(default_factory=dict)
    verdict: Verdict = field(default_factory=Verdict)
    _prompts: dict[int, str] = field(default_factory=dict)

    def run(self, progress: Progress) -> None:
        with progress("filter", len(self.source)) as advance:
            for i, record in enumerate(self.source.records()):
                self._filter(i, record)
                if (i + 1) % BATCH == 0 or i + 1 == len(self.source):
                    advance(i % BATCH + 1)
        if self.judge is not None:
            self._judge(self.judge, progress)

    @property
    def stays(self) -> list[int]:
        return [i for i in range(len(self.source)) if i not in self.left_out]

    def row(self, i: int) -> Mapping[str, Any]:
        """The cells of a row that stays."""
        return self.cells[i] if i in self.cells else self.source.record(i).cells

    def clean(self, i: int) -> Record:
        """A row as reports may show it."""
        record, personal = self.source.record(i), self.personal
        return record if personal is None else personal.clean(record, self.source.order, self.source.fixed, count=False)

    def detail(self, text: str) -> str:
        """A detail as reports may show it."""
        return text if self.personal is None else self.personal.text(text)

    @property
    def personal(self) -> PersonalData | None:
        return next((each for each in self.filters.values() if isinstance(each, PersonalData)), None)

    def classes(self, places: list[int]) -> list[tuple[str, ...]]:
        """The labels of rows; none where the layout has no labels."""
        column = strata(self.source.kinds)
        return [() if column is None else self.source.value(i, column) for i in places]

    def _filter(self, i: int, record: Record) -> None:
        for name, each in self.filters.items():
            detail = each.reason(record)
            if detail is not None:
                self.left_out[i] = (name, detail)
                return
            if isinstance(each, PersonalData) and each.action == "replace":
                new = each.clean(record, self.source.order, self.source.fixed)
                if new.cells != record.cells:
                    self.cells[i], record = new.cells, new
        if self.judge is not None:
            self._prompts[i] = self.judge.prompt(record)

    def _judge(self, judge: Judge, progress: Progress) -> None:
        checks = dict(self._checks(judge))
        scores = judge.scores([*self._prompts.values(), *checks.values()], progress)
        for i, score in zip([*self._prompts, *checks], scores, strict=True):
            place = 2 if score is None else 0 if score >= judge.rubric.keep else 1
            (self.verdict.falls if i in checks else self.verdict.stays)[place] += 1
            if place and i not in checks:
                self.left_out[i] = (
                    JUDGE,
                    "no score" if score is None else f"score {score:g}, {judge.rubric.keep:g} stays",
                )
        self._prompts.clear()

    def _checks(self, judge: Judge) -> Iterator[tuple[int, str]]:
        """Rows that filters left out, drawn by the judge's seed, as the judge is asked for them."""
        readable = [i for i in self.left_out if not self.source.record(i).problem]
        for i in sorted(random.Random(judge.rubric.seed).sample(readable, min(judge.rubric.checks, len(readable)))):
            yield i, judge.prompt(self.clean(i))
