"""How a student is judged by the texts that it writes when it is served, one for each row.

Exact match decides, and where a search scores the rewrites recall@10 may fall as little. Several expansions are judged by their
first: a served student writes greedily.
"""

from functools import lru_cache

import numpy as np

from mangakd.core.spec import Head
from mangakd.data.rows import Rows
from mangakd.data.seq2seq import SourceOptions
from mangakd.evaluation.bootstrap import Statistic
from mangakd.evaluation.judge import Arrays, Judge, Score
from mangakd.evaluation.served import Served
from mangakd.evaluation.statistics import mean
from mangakd.tasks.rewrite import encode
from mangakd.tasks.rewrite.judge import GENERATED, SCORES
from mangakd.tasks.rewrite.measures import of_text
from mangakd.tasks.rewrite.search import Search
from mangakd.tasks.rewrite.texts import Scorer

SAME, TEXTS = "same_text", "texts"
FOUND = "recall@10"


class TextJudge(Judge):
    """Answers hold the scores of a text for each row (N), NaN where a score has no meaning, and `texts` (N) of str."""

    scores = {name: SCORES[name] for name in GENERATED} | {SAME: Score("same text", "{:.1%}")}
    main = "exact_match"
    monitors = watched = ("exact_match",)

    def statistics(
        self, head: Head, answers: Arrays, truth: Arrays, teacher: Arrays | None = None
    ) -> dict[str, Statistic]:
        own = {name: of_text(answers[name], truth["later"] > 0) for name in GENERATED if name in answers}
        if teacher is not None and TEXTS in teacher:
            own[SAME] = mean((answers[TEXTS] == teacher[TEXTS]).astype(np.float64), most=1)
        return {name: each for name, each in own.items() if name == SAME or each.features[:, 1].any()}

    def chance(self, head: Head, truth: Arrays) -> dict[str, float]:
        return {}


def served(rows: Rows, search: Search, options: SourceOptions) -> Served:
    """Rows as `Rewrite.prepare` leaves them."""
    scorer = Scorer.of(rows, search)

    @lru_cache(maxsize=32)  # a text is asked for by each score
    def scores(texts: tuple[str, ...]) -> Arrays:
        table = [scorer.scores(i, [text]) for i, text in enumerate(texts)]
        columns = {name: np.array([row[name] for row in table]) for name in (table[0] if table else ())}
        return {**columns, TEXTS: np.array(texts, dtype=object)}

    truth = {"later": encode.is_later(rows).astype(np.int64)}
    return Served(
        list(scorer.turns), lambda outputs: scores(tuple(outputs)), TextJudge(), truth, True, SAME,
        others=() if scorer.index is None else (FOUND,), turns=options.turns, max_new_tokens=options.max_target_length,
    )  # fmt: skip
