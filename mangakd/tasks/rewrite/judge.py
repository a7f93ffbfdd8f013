"""`RewriteJudge`: the scores of target tokens (tasks/token_scores.py), and of the texts that each system writes.

Systems are teacher, student, student without KD, and two that need no model: `copy`, the utterance as it is, and `human`, the
targets. The scores of texts (scores.py, search.py) are means over the rows where they have a meaning, without first turns where
others have a history: a first turn stands alone, and to copy it is right. Imports no torch: reports need none.

    recall_gain   Σ (student − copy) / Σ (teacher − copy) of recall@10: the share of the teacher's gain that the student keeps
"""

import math

from mangakd.core.spec import Head
from mangakd.evaluation.bootstrap import Statistic
from mangakd.evaluation.judge import Arrays, Details, Judge, Score
from mangakd.evaluation.predictions import Predictions
from mangakd.tasks import token_scores
from mangakd.tasks.rewrite.details import RewriteDetails
from mangakd.tasks.rewrite.measures import GAIN, by_source, of_text

_TEXTS = "train again with task.generate=null, which writes a text for each test row"
_SEARCH = f"{_TEXTS}, and with data.columns.answer or task.search.corpus"
_GAIN = f"the teacher's texts find no more than the utterance does, or there are none: {_SEARCH}"
SCORES = token_scores.SCORES | {
    "exact_match": Score("exact match", "{:.1%}", missing=_TEXTS),
    "token_f1": Score("token-F1", "{:.3f}", missing=_TEXTS),
    "rouge_l": Score("ROUGE-L", "{:.3f}", missing=_TEXTS),
    "added_terms": Score("added terms", "{:.1%}", meaning="recall of the terms that the targets add", missing=_TEXTS),
    "recall@10": Score("recall@10", "{:.3f}", meaning="recall@10 of a BM25 search", missing=_SEARCH),
    "recall@100": Score("recall@100", "{:.3f}", meaning="recall@100 of a BM25 search", missing=_SEARCH),
    "mrr@10": Score("MRR@10", "{:.3f}", meaning="MRR@10 of a BM25 search", missing=_SEARCH),
    GAIN: Score("kept gain", "{:.1%}", meaning="share of the teacher's gain in recall@10 over copying", missing=_GAIN),
}
GENERATED = ("exact_match", "token_f1", "rouge_l", "added_terms", "recall@10", "recall@100", "mrr@10")


class RewriteJudge(Judge):
    """Answers hold the sums of a row's tokens and, where the model wrote texts, their scores (N), NaN for other rows.

    Truth holds `tokens`, `later` and `source_row` (N). Intervals draw sources, each with all its expansions.
    """

    scores = SCORES
    main = "perplexity"
    monitors = ("perplexity", "nll", "accuracy", "ece", *GENERATED)
    watched = ("perplexity", "agreement", "exact_match", "recall@10")
    generated = GENERATED

    def statistics(
        self, head: Head, answers: Arrays, truth: Arrays, teacher: Arrays | None = None
    ) -> dict[str, Statistic]:
        own = {name: of_text(answers[name], truth["later"] > 0) for name in GENERATED if name in answers}
        of_texts = {name: each for name, each in own.items() if each.features.any()}
        every = token_scores.statistics(answers, truth) | of_texts
        return {name: by_source(each, truth) for name, each in every.items()}

    def details(self, test: Predictions, validation: Predictions | None = None) -> Details:
        return RewriteDetails(test, self.scores)

    def chance(self, head: Head, truth: Arrays) -> dict[str, float]:
        """The nll of a model to which all tokens of the vocabulary are alike."""
        return {"nll": math.log(head.outputs)} if head.outputs else {}
