"""`ClassificationJudge`: the scores of one label of C, or of any subset of C labels, and what the report adds to them."""

from collections.abc import Mapping

import numpy as np

from mangakd.evaluation import statistics
from mangakd.evaluation.bootstrap import Statistic
from mangakd.evaluation.calibration import fit_temperature
from mangakd.evaluation.judge import Details, Judge
from mangakd.evaluation.predictions import Predictions
from mangakd.evaluation.report.blocks import Section
from mangakd.evaluation.report.measure import RunResult
from mangakd.evaluation.statistics import Answers
from mangakd.tasks.classification import calibration, mistakes


class ClassificationJudge(Judge):
    """Answers are logits (N, C). Truth is class ids (N), or 0 and 1 (N, C) where a row may have several labels.

    Formulas: evaluation/statistics.py.
    """

    scores = statistics.SCORES
    main = "accuracy"
    monitors = ("accuracy", "macro_f1", "ece")
    watched = ("accuracy", "agreement", "kl")

    def statistics(
        self, answers: np.ndarray, truth: np.ndarray, teacher: np.ndarray | None = None
    ) -> dict[str, Statistic]:
        return statistics.scores(Answers(answers, truth), None if teacher is None else Answers(teacher, truth))

    def chance(self, truth: np.ndarray) -> dict[str, float]:
        """The share of the commonest label, or of the commonest label set."""
        counts = np.unique(truth, axis=0, return_counts=True)[1] if truth.ndim == 2 else np.bincount(truth)
        return {"accuracy": float(counts.max() / len(truth))}

    def details(self, test: Predictions, validation: Predictions | None = None) -> Details:
        """With the temperatures that are refit on validation, where it is given."""
        logits = {} if validation is None else validation.logits
        temperatures = {
            model: fit_temperature(logits[model], validation.targets)
            for model in test.models
            if validation is not None and model in logits
        }
        return ClassificationDetails(test, temperatures)


class ClassificationDetails(Details):
    """answers, refit: model → its answers on test, as trained and after the refit of its temperature.

    Adds entropy, ece_refit, and rare_accuracy where rows of test have a rare class.
    """

    def __init__(self, test: Predictions, temperatures: Mapping[str, float]) -> None:
        self.test, self.temperatures = test, temperatures
        self.answers = {model: Answers(test.logits[model], test.targets) for model in test.models}
        self.refit = {model: Answers(test.logits[model], test.targets, t) for model, t in temperatures.items()}
        added = {(model, "entropy"): statistics.mean(answers.entropy) for model, answers in self.answers.items()}
        for model, answers in self.answers.items():
            if test.rare.any() and answers.truth[:, test.rare].any():
                added[model, "rare_accuracy"] = statistics.rare_accuracy(answers, test.rare)
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
