"""`Judge` scores a model's answers. Its table of `Score`s is the one place that names, formats and ranks scores.

Tables, gate, curves, progress, sweeps, checkpoints and exports read that table. The module imports numpy and no torch, so that
a report needs no torch.
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
    from mangakd.evaluation.report.measure import RunResult

Better = Literal["higher", "lower"]
Arrays = Mapping[str, np.ndarray]
"""Name → (N, …): a model's answers (`Task.ask`), or the truth (the columns of the split)."""
Number = TypeVar("Number", float, np.ndarray, Estimate)


@dataclass(frozen=True)
class Score:
    """title: the header of a column. format: of a value; a percentage has differences in points. better: higher or lower.

    meaning: a longer title. unit: of the values, such as nats. missing: why a run may lack the score, and how to get the score.
    """

    title: str
    format: str
    better: Better = "higher"
    meaning: str = ""
    unit: str = ""
    missing: str = "train again: the run has no predictions"

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
        """The factor from a difference to its display: 100 for points."""
        return 100 if self.percent else 1

    @property
    def difference_format(self) -> str:
        return "{:+.1f}" if self.percent else self.format.replace("{:", "{:+")

    @property
    def difference_unit(self) -> str:
        """The suffix for a title."""
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
        """How much better `new` is than `old`. Above 0, `new` is better, whatever the score's direction."""
        return new - old if self.higher else old - new  # type: ignore[return-value]

    def retention(self, student: Number, teacher: Number) -> Number:
        """The share of the teacher's score that the student keeps: student / teacher, or teacher / student."""
        above, below = (student, teacher) if self.higher else (teacher, student)
        return above / (below if isinstance(below, Estimate) else max(below, 1e-9))  # type: ignore[operator, return-value]

    def rank(self, value: float) -> float:
        """A key to sort by: the best value first, NaN last."""
        return math.inf if math.isnan(value) else -value if self.higher else value


class Details:
    """Additions of a task to a report. statistics: (model, score) → scores that `Judge.statistics` lacks.

    notes: paragraphs below the table of scores.
    """

    statistics: Mapping[tuple[str, str], Statistic] = {}
    notes: Sequence[str] = ()

    def sections(self, result: "RunResult") -> list["Section"]:
        return []


class Judge(ABC):
    """scores: name → Score, in the order of the tables. main: the score of retention, lift and headlines.

    monitors: scores that can choose an epoch; they need no teacher. watched: scores of the progress line and the learning
    curves. written: scores of texts that models write (`Task.samples`), each a mean over prompts. generated: those of `scores`
    that need a text that the model writes for each row; they exist where the task's texts belong to rows.
    head: of the models. answers, teacher: of student and teacher, as `Task.ask` gives them. truth: the columns of the split.
    """

    scores: Mapping[str, Score]
    main: str
    monitors: Sequence[str]
    watched: Sequence[str]
    written: Mapping[str, Score] = {}
    generated: Sequence[str] = ()

    @abstractmethod
    def statistics(
        self, head: Head, answers: Arrays, truth: Arrays, teacher: Arrays | None = None
    ) -> dict[str, Statistic]:
        """Score → its statistic over rows. Scores that compare with a teacher need the teacher's answers."""

    @abstractmethod
    def chance(self, head: Head, truth: Arrays) -> dict[str, float]:
        """Score → its value for a model that guesses. Only for scores whose best value is 1, or 0 if lower is better."""

    def details(self, test: "Predictions", validation: "Predictions | None" = None) -> Details:
        """What the report of a run shows beside `statistics`."""
        return Details()

    def values(self, head: Head, answers: Arrays, truth: Arrays, teacher: Arrays | None = None) -> dict[str, float]:
        """Score → value, without scores that are undefined on these rows."""
        values = {name: each.value for name, each in self.statistics(head, answers, truth, teacher).items()}
        return {name: value for name, value in values.items() if not math.isnan(value)}

    def score(self, name: str) -> Score:
        """Raises UserError for an unknown name."""
        if name not in self.scores:
            raise UserError(f"{name!r} is no score{near(name, self.scores)} Known: {', '.join(self.scores)}.")
        return self.scores[name]
