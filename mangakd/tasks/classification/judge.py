"""`ClassificationJudge`: the scores of one label of C, or of any subset of C labels, and what the report adds to them."""

from collections.abc import Mapping

import numpy as np

from mangakd.core.spec import Head
from mangakd.core.temperature_fit import fit_temperature
from mangakd.evaluation import statistics
from mangakd.evaluation.bootstrap import Statistic
from mangakd.evaluation.judge import Arrays, Details, Judge
from mangakd.evaluation.predictions import Predictions
from mangakd.evaluation.report.blocks import Section
from mangakd.evaluation.report.measure import RunResult
from mangakd.evaluation.statistics import Answers
from mangakd.tasks.classification import calibration, mistakes


class ClassificationJudge(Judge):
    """Answers hold `logits` (N, C). Truth holds `labels`: class ids (N), or 0 and 1 (N, C) with several labels a row.

    Formulas: evaluation/statistics.py.
    """

    scores = statistics.SCORES
    main = "accuracy"
    monitors = ("accuracy", "macro_f1", "ece")
    watched = ("accuracy", "agreement", "kl")

    def statistics(
        self, head: Head, answers: Arrays, truth: Arrays, teacher: Arrays | None = None
    ) -> dict[str, Statistic]:
        sides = [side and _answers(head, side, truth) for side in (answers, teacher)]
        return statistics.scores(*sides)  # type: ignore[arg-type]

    def chance(self, head: Head, truth: Arrays) -> dict[str, float]:
        """The share of the commonest label, or of the commonest label set."""
        labels = truth["labels"]
        counts = np.unique(labels, axis=0, return_counts=True)[1] if head.several else np.bincount(labels)
        return {"accuracy": float(counts.max() / len(labels))}

    def details(self, test: Predictions, validation: Predictions | None = None) -> Details:
        """With the temperatures that are refit on validation, where it is given."""
        temperatures = {
            model: fit_temperature(validation.answers[model]["logits"], validation.truth["labels"], test.head.several)
            for model in test.models
            if validation is not None and model in validation.answers
        }
        return ClassificationDetails(test, temperatures)


def _answers(head: Head, answers: Arrays, truth: Arrays, temperature: float = 1.0) -> Answers:
    return Answers(answers["logits"], truth["labels"], several=head.several, temperature=temperature)


class ClassificationDetails(Details):
    """answers, refit: model → its answers on test, as trained and after the refit of its temperature.

    Adds entropy, ece_refit, and rare_accuracy where rows of test have a rare class.
    """

    def __init__(self, test: Predictions, temperatures: Mapping[str, float]) -> None:
        self.test, self.temperatures = test, temperatures
        self.answers = {model: _answers(test.head, test.answers[model], test.truth) for model in test.models}
        self.refit = {
            model: _answers(test.head, test.answers[model], test.truth, t) for model, t in temperatures.items()
        }
        rare = mistakes.rare_mask(test)
        added = {(model, "entropy"): statistics.mean(answers.entropy) for model, answers in self.answers.items()}
        for model, answers in self.answers.items():
            if rare.any() and answers.truth[:, rare].any():
                added[model, "rare_accuracy"] = statistics.rare_accuracy(answers, rare)
        self.statistics = added | {
            (model, "ece_refit"): statistics.ece(answers) for model, answers in self.refit.items()
        }
        self.notes = mistakes.rare_classes(test)

    def sections(self, result: RunResult) -> list[Section]:
        return [
            calibration.section(result, self.answers, self.refit, self.temperatures),
            mistakes.confused(self.answers, self.test),
            mistakes.disagreements(self.answers, self.test),
        ]
