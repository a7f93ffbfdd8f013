"""What a ranker's report adds: how sure the differences are, the spread of scores, and queries whose first document changed."""

from collections.abc import Mapping, Sequence

import numpy as np

from mangakd.evaluation.bootstrap import Statistic
from mangakd.evaluation.judge import Details, Score
from mangakd.evaluation.predictions import Predictions
from mangakd.evaluation.randomisation import p_value
from mangakd.evaluation.report.blocks import Block, Section, Table
from mangakd.evaluation.report.measure import RunResult
from mangakd.evaluation.report.sections import model_title, models
from mangakd.tasks.rerank.metrics import spread

EXAMPLES, LONGEST = 20, 160
CONSTANT = 1e-6  # a spread below which scores are all alike


class RerankDetails(Details):
    """statistics: (model, score) → its statistic on test."""

    def __init__(
        self, test: Predictions, statistics: Mapping[tuple[str, str], Statistic], scores: Mapping[str, Score]
    ) -> None:
        self.test, self._all, self._scores = test, statistics, scores
        several = np.isfinite(test.truth["grades"]).sum(1) > 1
        self._spreads = {
            model: spread(test.answers[model]["logits"][several]) for model in test.models if several.any()
        }
        self.notes = [*self._unanswered(), *self._constant()]

    def sections(self, result: RunResult) -> list[Section]:
        return [self._tested(models(result)), self._spread(models(result)), changed(self.test)]

    def _unanswered(self) -> list[str]:
        """The number of queries that say nothing about an order."""
        none = int((np.nan_to_num(self.test.truth["grades"], nan=0.0).max(1) <= 0).sum())
        rows = len(self.test.texts)
        return (
            [f"{none} of {rows} queries have no relevant document: NDCG, MRR and recall leave them out."]
            if none
            else []
        )

    def _constant(self) -> list[str]:
        """Models without an order of their own. A few tied queries are no news."""
        shares = {model: (each < CONSTANT).mean() for model, each in self._spreads.items()}
        return [
            f"The {model_title(model)} gives all documents of a query one score in {share:.0%} of the queries: it has learnt no "
            "order there, and its scores are those of chance."
            for model, share in shares.items()
            if share > 0.1
        ]

    def _tested(self, names: Sequence[str]) -> Section:
        others = [name for name in names if name != "student"]
        rows = []
        for score, about in self._scores.items():
            sides = {name: self._all[name, score].features for name in names if (name, score) in self._all}
            if sides.keys() >= set(names):
                rows.append([about.text, *(_p(sides["student"], sides[other]) for other in others)])
        note = (
            "p-values of a randomisation test over queries: how often two models that are equally good would be as far apart as "
            "these are, if a coin decided for each query which of the two answers is whose. Below 0.05, chance is a poor "
            "explanation. These are single tests of two runs: of twenty such numbers, one is below 0.05 by chance."
        )
        table = Table(["", *(f"student against {model_title(other)}" for other in others)], rows)
        return Section("Randomisation test", [note, table])

    def _spread(self, names: Sequence[str]) -> Section:
        rows = []
        for name in (name for name in names if name in self._spreads):
            scores, spreads = self.test.answers[name]["logits"], self._spreads[name]
            finite, tied = scores[np.isfinite(scores)], (spreads < CONSTANT).mean()
            ends = f"{finite.min():.2f} … {finite.max():.2f}"
            rows.append([model_title(name), f"{np.median(spreads):.3f}", f"{tied:.1%}", ends])
        note = (
            "Standard deviation of the scores of a query's documents, of queries with two or more. A student whose spread is far "
            "below its teacher's is losing the order to one score for all."
        )
        return Section(
            "Spread of scores",
            [note, Table(["", "median spread in a query", "queries with one score", "scores"], rows)],
        )


def _p(one: np.ndarray, other: np.ndarray) -> str:
    """Of the queries that count for both; features: (N, 2), values and whether they count."""
    both = (one[:, 1] > 0) & (other[:, 1] > 0)
    value = p_value(one[both, 0], other[both, 0])
    return "< 0.001" if value < 0.001 else f"{value:.3f}"


def changed(test: Predictions) -> Section:
    """Queries for which student and teacher put different documents first, those first that the teacher was surest of."""
    teacher, student = (test.answers[model]["logits"] for model in ("teacher", "student"))
    rows = np.arange(len(teacher))
    first, new = teacher.argmax(1), student.argmax(1)
    differ = np.flatnonzero(teacher[rows, new] < teacher[rows, first])  # not where the teacher ties the two
    title = "Changed first documents"
    if not len(differ):
        return Section(title, ["Student and teacher put the same document first for every test query."])
    grades = test.truth["grades"]
    was, now = grades[rows, first][differ], grades[rows, new][differ]
    note = (
        f"Student and teacher put different documents first for {len(differ)} of {len(rows)} test queries: the student's has a "
        f"higher grade for {int((now > was).sum())}, a lower one for {int((now < was).sum())}. The "
        f"{min(EXAMPLES, len(differ))} for which the teacher's scores of the two differ most:"
    )
    gap = teacher[differ, first[differ]] - teacher[differ, new[differ]]
    rows_of = differ[np.argsort(-gap, kind="stable")][:EXAMPLES]
    documents = test.lists["documents"]
    table = [
        [
            _cut(test.texts[i]),
            *(f"{_cut(documents[i][place])} (grade {grades[i, place]:g})" for place in (first[i], new[i])),
        ]
        for i in rows_of
    ]
    blocks: list[Block] = [note, Table(["query", "teacher's first", "student's first"], table, texts=True)]
    return Section(title, blocks)


def _cut(text: str) -> str:
    return text if len(text) <= LONGEST else text[: LONGEST - 1] + "…"
