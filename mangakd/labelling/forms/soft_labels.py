"""`writes=soft_labels`: a probability for each label of a text, for `teacher=probabilities` of `task=intent`."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

from mangakd.core.errors import UserError
from mangakd.data.rows import Rows
from mangakd.labelling.forms.distribution import distribution
from mangakd.labelling.forms.form import Row, Unusable
from mangakd.labelling.forms.labels import Labels
from mangakd.labelling.provider import Answer


@dataclass(frozen=True, kw_only=True)
class SoftLabels(Labels):
    """least_mass: of all labels together; an answer that gives them less is unusable, because what is left was no classifier's.

    Columns beside text and label (the likeliest): `probabilities`, name → probability with the sum 1, and `missing`, the
    probability that belonged to no label before the division.
    """

    most_samples: ClassVar[int | None] = 1  # each would have the same log-probabilities
    reads_cut: ClassVar[bool] = True
    least_mass: float = 0.5

    def __post_init__(self) -> None:
        if not 0 <= self.least_mass <= 1:
            raise UserError(f"labels.least_mass={self.least_mass} must be from 0 to 1.")

    @property
    def settings(self) -> Mapping[str, Any]:
        return {**super().settings, "least_mass": self.least_mass}

    @property
    def reads_logprobs(self) -> bool:
        return True

    def read(self, rows: Rows, i: int, answer: Answer) -> Sequence[Row]:
        if answer.thought:
            raise Unusable("a thought before the label", "its log-probabilities are those of the thought")
        if not answer.logprobs:
            raise Unusable("no log-probabilities", answer.text)
        masses = distribution(self.choices, answer.logprobs, answer.text)
        if masses is None or masses.missing > 1 - self.least_mass:
            missing = 1.0 if masses is None else masses.missing
            raise Unusable(f"labels have less than labels.least_mass={self.least_mass:g}", f"missing {missing:.4f}")
        named = dict(zip(self.labels.names, masses.probabilities, strict=True))
        best = max(named, key=lambda name: named[name])
        return [{"text": rows["text"][i], "label": best, "probabilities": named, "missing": masses.missing}]
