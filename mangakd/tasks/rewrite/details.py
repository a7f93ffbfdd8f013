"""What the report of a rewriter adds: its scores by source and of first turns, and the texts of all systems side by side."""

from collections.abc import Iterator, Mapping

import numpy as np

from mangakd.evaluation.bootstrap import Estimate, Statistic, bootstrap
from mangakd.evaluation.judge import Details, Score
from mangakd.evaluation.predictions import Predictions
from mangakd.evaluation.report.blocks import Block, Section, Table, Value
from mangakd.evaluation.report.measure import RunResult
from mangakd.evaluation.report.sections import NAMES, cell, difference, model_title
from mangakd.tasks.rewrite.measures import COPY, GAIN, HUMAN, by_source, gain, of_text

EXAMPLES, LONGEST = 50, 400
GROUPED = ("exact_match", "token_f1", "recall@10")
ORDER = (COPY, HUMAN, *NAMES)
TURNS = "\n"  # between the turns of a history in a cell


class RewriteDetails(Details):
    """test: its lists hold what each row's text was made of (`Rewrite.lists`), and `written` what each model wrote."""

    def __init__(self, test: Predictions, scores: Mapping[str, Score]) -> None:
        self.test, self._scores = test, scores
        self._later = test.truth["later"] > 0
        self._systems = [name for name in ORDER if "exact_match" in test.answers.get(name, {})]
        self.statistics = self._gains()
        self.notes = self._notes()

    def sections(self, result: RunResult) -> list[Section]:
        if "student" not in self._systems:
            return []
        return [self._by_group(result.resamples), self._side_by_side()]

    def _gains(self) -> dict[tuple[str, str], Statistic]:
        answers = self.test.answers
        if not {"teacher", COPY} <= answers.keys():
            return {}
        gains = {
            name: gain(answers[name], answers["teacher"], answers[COPY], self._later)
            for name in ("student", "baseline")
            if name in answers
        }
        return {(name, GAIN): by_source(each, self.test.truth) for name, each in gains.items() if each is not None}

    def _notes(self) -> list[str]:
        if not self._systems:
            return []
        first = int((~self._later).sum())
        apart = f" {first} first turns are left out of them and stand apart below." if first else ""
        notes = [
            f"Scores of texts (exact match and what follows) are of {self._rows(self._later)} test rows, greedy unless "
            f"task.expansions says otherwise; `{COPY}` is the utterance as it is, `{HUMAN}` the targets of the data.{apart}"
        ]
        if "recall@10" in self.test.answers[COPY]:
            known = int((~np.isnan(self.test.answers[COPY]["recall@10"]) & self._later).sum())
            notes.append(f"The search is scored on {known} rows that have an answer or a query_id.")
        return notes

    def _rows(self, rows: np.ndarray) -> int:
        """How many of some rows have a text."""
        return int((~np.isnan(self.test.answers[self._systems[0]]["exact_match"]) & rows).sum())

    def _groups(self) -> Iterator[tuple[str, np.ndarray]]:
        """Title and rows (N) bool. A source's rows are later turns."""
        yield "all but first turns" if not self._later.all() else "all rows", self._later
        sources = np.array([each[0] if each else "" for each in self.test.lists.get("source", [])])
        names = sorted({*sources.tolist()} - {""})
        for name in names if len(names) > 1 else ():
            yield f"source {name}", self._later & (sources == name)
        if not self._later.all():
            yield "first turns", ~self._later

    def _by_group(self, resamples: int) -> Section:
        groups = [(title, rows) for title, rows in self._groups() if self._rows(rows)]
        blocks: list[Block] = [
            "Brackets: 95 % of bootstrap resamples of the rows of a group; the last columns are paired differences."
        ]
        pairs = [("student", other) for other in ("baseline", "teacher", COPY) if other in self._systems]
        for score in GROUPED:
            rows: list[list[str | Value]] = []
            for title, chosen in groups:
                estimates = self._estimates(score, chosen, resamples)
                if "student" in estimates:
                    rows.append([f"{title} ({self._rows(chosen)})", *self._cells(score, estimates, pairs)])
            about = self._scores[score]
            against = [f"student − {model_title(other)}{about.difference_unit}" for _, other in pairs]
            if rows:
                blocks.append(Table([about.text, *map(model_title, self._systems), *against], rows))
        return Section("By source, and first turns apart", blocks)

    def _estimates(self, score: str, rows: np.ndarray, resamples: int) -> dict[str, Estimate]:
        """Of each system that has the score there, on the rows of a group alone."""
        statistics = {
            name: of_text(self.test.answers[name][score][rows], np.ones(int(rows.sum()), dtype=bool))
            for name in self._systems
            if score in self.test.answers[name] and not np.isnan(self.test.answers[name][score][rows]).all()
        }
        return bootstrap(statistics, resamples)

    def _cells(self, score: str, estimates: Mapping[str, Estimate], pairs: list[tuple[str, str]]) -> list[Value]:
        about = self._scores[score]
        own = [cell(estimates.get(name), about.format) for name in self._systems]
        both = [(estimates.get(one), estimates.get(other)) for one, other in pairs]
        return own + [difference(None if a is None or b is None else a - b, about) for a, b in both]

    def _side_by_side(self) -> Section:
        """Rows with a text of the student, the least like their targets first."""
        test, written, own = self.test, self.test.written, self.test.answers["student"]
        f1 = np.nan_to_num(own["token_f1"], nan=2.0)
        scores = [name for name in ("token_f1", "recall@10") if name in own]
        places = [i for i in np.lexsort((~self._later, f1)).tolist() if written["student"][i]][:EXAMPLES]
        models = [name for name in NAMES if name in written]
        rows = [
            [
                *(_cut(TURNS.join(test.lists[name][i])) for name in ("history", "utterance", "rewrite")),
                *(_cut(TURNS.join(written[name][i])) for name in models),
                *(f"{own[name][i]:.2f}" for name in scores),
            ]
            for i in places
        ]  # fmt: skip
        note = f"The {len(rows)} test rows whose text of the student has the smallest token-F1; first turns last among equals."
        headers = [
            "history",
            "utterance",
            HUMAN,
            *map(model_title, models),
            *(self._scores[name].title for name in scores),
        ]
        return Section("Rewrites side by side", [note, Table(headers, rows, texts=True)])


def _cut(text: str) -> str:
    """The end of a long text: the turns nearest to the utterance."""
    return text if len(text) <= LONGEST else "…" + text[1 - LONGEST :]
