"""`Judge`: what a model's answers are worth. Its `Score` table is the one place that names, formats and ranks scores.

Tables, gate, curves, progress, sweeps, checkpoints and exports read that table. numpy only: a report is written without torch.
"""

import math
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, TypeVar

import numpy as np

from mangakd.core.errors import UserError, near
from mangakd.core.spec import Head
from mangakd.evaluation.bootstrap import Estimate, Statistic

if TYPE_CHECKING:
    from mangakd.evaluation.predictions import Predictions
    from mangakd.evaluation.report.blocks import Section
    from mangakd.evaluation.report.measure import Measured

Better = Literal["higher", "lower"]
Arrays = Mapping[str, np.ndarray]
"""By name, each (N, …): what a model says of each row (`Task.ask`), or what is true of it (the columns of the split)."""
Number = TypeVar("Number", float, np.ndarray, Estimate)


@dataclass(frozen=True)
class Score:
    """title: heads a column. format: of a value; a percentage has differences in points. better: higher or lower.

    meaning: the title where there is room for more words. unit: of the values, such as nats. missing: why a run may lack the
    score, and how to get it.
    """

    title: str
    format: str
    better: Better = "higher"
    meaning: str = ""
    unit: str = ""
    missing: str = "train again: the run kept no predictions"

    @property
    def text(self) -> str:
        """The meaning, with its unit."""
        return ", ".join(filter(None, (self.meaning or self.title, self.unit)))

    @property
    def percent(self) -> bool:
        return self.format.endswith("%}")

    @property
    def axis(self) -> str:
        """The unit, for the axis of a figure."""
        return self.unit or ("share of rows" if self.percent else self.title)

    @property
    def factor(self) -> int:
        """From a difference to the number that is shown: 100 for points."""
        return 100 if self.percent else 1

    @property
    def difference_format(self) -> str:
        return "{:+.1f}" if self.percent else self.format.replace("{:", "{:+")

    @property
    def difference_unit(self) -> str:
        """To be appended to a title."""
        return ", points" if self.percent else ""

    @property
    def higher(self) -> bool:
        return self.better == "higher"

    @property
    def mode(self) -> Literal["max", "min"]:
        """Lightning's word for the direction."""
        return "max" if self.higher else "min"

    @property
    def direction(self) -> Literal["maximize", "minimize"]:
        """Optuna's word for the direction."""
        return "maximize" if self.higher else "minimize"

    def gain(self, new: Number, old: Number) -> Number:
        """How much better `new` is than `old`: above 0 where it is better, whatever the direction."""
        return new - old if self.higher else old - new  # type: ignore[return-value]

    def retention(self, student: Number, teacher: Number) -> Number:
        """The share of the teacher's score that the student keeps: student / teacher, or teacher / student."""
        above, below = (student, teacher) if self.higher else (teacher, student)
        return above / (below if isinstance(below, Estimate) else max(below, 1e-9))  # type: ignore[operator, return-value]

    def rank(self, value: float) -> float:
        """A key to sort by: the best value first, NaN last."""
        return math.inf if math.isnan(value) else -value if self.higher else value


class Details:
    """What one kind of task adds to a report. statistics: (model, score) → more scores than `Judge.statistics` gives.

    notes: paragraphs below the table of scores.
    """

    statistics: Mapping[tuple[str, str], Statistic] = {}
    notes: Sequence[str] = ()

    def sections(self, measured: "Measured") -> list["Section"]:
        return []


class Judge(ABC):
    """scores: name → Score, in the order of tables. main: the score that retention, lift and headlines are about.

    monitors: scores that need no teacher, by which epochs can be chosen. watched: scores that the progress line and the
    learning curves show.
    head: of the models that are judged. answers, teacher: what they say. truth: the columns of the split.
    """

    scores: Mapping[str, Score]
    main: str
    monitors: Sequence[str]
    watched: Sequence[str]

    @abstractmethod
    def statistics(
        self, head: Head, answers: Arrays, truth: Arrays, teacher: Arrays | None = None
    ) -> dict[str, Statistic]:
        """Score → its statistic over rows; scores against a teacher only with the teacher's answers."""

    @abstractmethod
    def chance(self, head: Head, truth: Arrays) -> dict[str, float]:
        """Score → its value for a model that has learnt nothing. Only of scores whose best is 1, or 0 where lower is better."""

    def details(self, test: "Predictions", validation: "Predictions | None" = None) -> Details:
        """What the report of a run has beside `statistics`."""
        return Details()

    def values(self, head: Head, answers: Arrays, truth: Arrays, teacher: Arrays | None = None) -> dict[str, float]:
        """Score → value; a score that is not defined on these rows is left out."""
        values = {name: each.value for name, each in self.statistics(head, answers, truth, teacher).items()}
        return {name: value for name, value in values.items() if not math.isnan(value)}

    def score(self, name: str) -> Score:
        """Raises UserError for a name that the judge does not have."""
        if name not in self.scores:
            raise UserError(f"{name!r} is no score{near(name, self.scores)} Known: {', '.join(self.scores)}.")
        return self.scores[name]
