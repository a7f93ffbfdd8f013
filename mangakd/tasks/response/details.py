"""What a language model's report adds: the rows whose answers the student predicts least as its teacher does."""

import numpy as np

from mangakd.evaluation.judge import Details
from mangakd.evaluation.predictions import Predictions
from mangakd.evaluation.report.blocks import Section, Table
from mangakd.evaluation.report.measure import RunResult
from mangakd.evaluation.report.sections import NAMES

EXAMPLES, LONGEST = 20, 160


class ResponseDetails(Details):
    def __init__(self, test: Predictions) -> None:
        self.test = test

    def sections(self, result: RunResult) -> list[Section]:
        return [] if "kl" not in self.test.answers["student"] else [farthest(self.test)]


def farthest(test: Predictions) -> Section:
    """The rows of the largest KL a token."""
    tokens, names = test.truth["tokens"], [name for name in NAMES if name in test.answers]
    kl = test.answers["student"]["kl"] / tokens
    rows = [
        [
            _cut(test.texts[i]), str(tokens[i]), f"{kl[i]:.3f}",
            *(f"{test.answers[name]['nll'][i] / tokens[i]:.3f}" for name in names),
        ]
        for i in np.argsort(-kl, kind="stable")[:EXAMPLES]
    ]  # fmt: skip
    note = (
        f"The {len(rows)} test rows with the largest KL(teacher ‖ student) a token, and the nll of a target token of each model. "
        "Where the teacher's nll is high, too, the answer cannot be told from the question."
    )
    headers = ["question", "target tokens", "KL", *(f"nll, {NAMES[name]}" for name in names)]
    return Section("Answers that differ most", [note, Table(headers, rows, texts=True)])


def _cut(text: str) -> str:
    return text if len(text) <= LONGEST else text[: LONGEST - 1] + "…"
