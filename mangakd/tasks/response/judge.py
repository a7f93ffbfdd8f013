"""`ResponseJudge`: the scores of a language model: of target tokens (tasks/token_scores.py), and of texts that it writes.

Imports no torch: reports need none.
"""

from math import log

from mangakd.core.spec import Head
from mangakd.evaluation.bootstrap import Statistic
from mangakd.evaluation.judge import Arrays, Details, Judge, Score
from mangakd.evaluation.predictions import Predictions
from mangakd.tasks import token_scores
from mangakd.tasks.response.details import ResponseDetails

WRITTEN = {
    "exact_match": Score("exact match", "{:.1%}"),
    "rouge_l": Score("ROUGE-L", "{:.3f}"),
    "final_answer": Score("final answer", "{:.1%}", meaning="final number is that of the reference"),
    "grounded": Score("grounded", "{:.1%}", meaning="content words that are in the context"),
    "repetition": Score("repetition", "{:.1%}", "lower", "4-grams that are repeated"),
    "tokens": Score("tokens", "{:.1f}", meaning="length, tokens"),
}


class ResponseJudge(Judge):
    """Answers hold the sums of a row's tokens, those beside a teacher where they were asked for. Truth holds `tokens` (N)."""

    scores = token_scores.SCORES
    main = "perplexity"
    monitors = ("perplexity", "nll", "accuracy", "ece")
    watched = ("perplexity", "agreement", "kl", "bucket_kl")
    written = WRITTEN

    def statistics(
        self, head: Head, answers: Arrays, truth: Arrays, teacher: Arrays | None = None
    ) -> dict[str, Statistic]:
        """The answers themselves hold what compares a model with the teacher."""
        return token_scores.statistics(answers, truth)

    def details(self, test: Predictions, validation: Predictions | None = None) -> Details:
        return ResponseDetails(test)

    def chance(self, head: Head, truth: Arrays) -> dict[str, float]:
        """The nll of a model to which all tokens of the vocabulary are alike."""
        return {"nll": log(head.outputs)} if head.outputs else {}
