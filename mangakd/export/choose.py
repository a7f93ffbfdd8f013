"""Chooses the variant that ships: the fastest variant that loses no more than `max_drop` points against the fp32 student.

The drop is paired: variant and student answer the same rows, so the difficulty of a row cancels in the interval. The limit
applies to the drop itself. The report shows the interval, because a validation split of a few hundred rows cannot distinguish
0.3 points from 0. Test scores do not influence the choice; only the chosen variant is tested, once.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import numpy as np

from mangakd.core.errors import UserError
from mangakd.core.numbers import largest_difference
from mangakd.core.spec import Head, Kind
from mangakd.evaluation import statistics
from mangakd.evaluation.bootstrap import RESAMPLES, Estimate, Statistic, bootstrap
from mangakd.evaluation.judge import Score
from mangakd.evaluation.served import Served
from mangakd.evaluation.statistics import Answers, accuracy, agreement, mean
from mangakd.export.measure import Measurement

MAX_DROP = 0.3  # points, a hundredth of the score
AS_FAST = 1.05  # times the fastest: two measurements of one variant often differ by more
ROUNDING = 1e-9  # 0.90 − 0.88 is a little more than 0.02
_STUDENT = ""  # the student's key among the variants' names
NAMES: dict[Kind, str] = {"labels": "accuracy", "score": "pearson", "vector": "cosine", "tokens": "exact_match"}
SCORES = {
    "accuracy": statistics.SCORES["accuracy"], "pearson": Score("Pearson's r", "{:.4f}"), "cosine": Score("cosine", "{:.4f}"),
    "exact_match": Score("exact match", "{:.1%}"),
}  # fmt: skip


@dataclass(frozen=True)
class Comparison:
    """A variant compared with the student. score: accuracy (several labels: of the set), Pearson's r, cosine to the student, or
    the main score of the task's judge; of texts the exact match. measure: its name.

    drop: points by which the variant is worse than the student. further: those of other scores that count. agreement_student,
    agreement_teacher: share of equal answers, r, or mean cosine. difference: largest |Δ output|; infinity if an output is NaN or
    infinite; of texts the share of others.
    """

    measurement: Measurement
    score: Estimate
    drop: Estimate
    agreement_student: float
    agreement_teacher: float | None
    difference: float
    passed: bool
    measure: str
    further: Mapping[str, Estimate] = field(default_factory=dict)

    @property
    def name(self) -> str:
        return self.measurement.name

    def words(self) -> str:
        if not np.isfinite(self.difference):
            return f"{self.name} answers some texts with NaN or infinity"
        drop, (low, high) = self.drop.value, self.drop.interval
        more = "".join(f", {0 - each.value:+.2f} of {name}" for name, each in self.further.items())
        if drop < 0:
            return f"{self.name} gains {-drop:.2f} points [{0 - high:.2f}, {0 - low:.2f}]{more}"
        return f"{self.name} loses {drop:.2f} points [{low:.2f}, {high:.2f}]{more}"

    def metrics(self) -> dict[str, Any]:
        """The entry in the manifest, under the name of the split."""
        measurement = self.measurement
        return {
            self.measure: self.score.value, "drop_points": self.drop.value, "drop_interval": list(self.drop.interval),
            "further": {
                name: {"drop_points": each.value, "drop_interval": list(each.interval)} for name, each in self.further.items()
            },
            "agreement_student": self.agreement_student, "agreement_teacher": self.agreement_teacher,
            "max_difference": self.difference, "passed": self.passed, "megabytes": measurement.megabytes,
            "load_seconds": measurement.load_seconds, "peak_rss_mb": measurement.peak_rss_mb,
            "latency_ms": {str(length): dict(times) for length, times in measurement.latency_ms.items()},
            "batch_ms": measurement.batch_ms, "company": measurement.company.metrics(),
        }  # fmt: skip


@dataclass(frozen=True)
class Choice:
    """name: of the variant that ships. reason: one sentence. comparisons: all variants, in the order given."""

    name: str
    reason: str
    comparisons: tuple[Comparison, ...]


def choose(
    variants: Sequence[Measurement],
    fp32: Sequence[str],
    student: np.ndarray,
    head: Head,
    targets: np.ndarray | None,
    teacher: np.ndarray | None = None,
    max_drop: float = MAX_DROP,
    resamples: int = RESAMPLES,
    served: Served | None = None,
) -> Choice:
    """Choose the variant that ships, from answers on validation.

    student, teacher: (N, C) or (N, D), PyTorch's outputs, or (N) texts that it writes. fp32: names of the variants in full
    precision; the fastest of them ships if no variant passes. targets: (N) class ids, (N, C) 0 and 1, (N) or (N, C) values, or
    (N) texts; None for embeddings, which are scored by their cosine to the student's. served: judges in place of targets. Raises
    UserError if no variant passes and no variant is fp32.
    """
    comparisons = judge(variants, student, head, targets, teacher, max_drop, resamples, served)
    candidates = [each for each in comparisons if each.passed]
    if candidates:
        best = _cheapest(candidates)
        return Choice(
            best.name, f"{best.words()}; the limit is {max_drop:g}, and no faster variant passes.", comparisons
        )
    exact = [each for each in comparisons if each.name in fp32 and np.isfinite(each.difference)]
    drops = "; ".join(each.words() for each in comparisons)
    if not exact:
        raise UserError(
            f"no variant passes export.max_drop={max_drop:g} and none in fp32 can ship: {drops}. Export onnx_fp32 or "
            "openvino_fp32 too, or raise export.max_drop."
        )
    best = _cheapest(exact)
    return Choice(
        best.name, f"No variant passes the limit of {max_drop:g} points, so fp32 ships: {drops}.", comparisons
    )


def judge(
    variants: Sequence[Measurement],
    student: np.ndarray,
    head: Head,
    targets: np.ndarray | None,
    teacher: np.ndarray | None,
    max_drop: float,
    resamples: int = RESAMPLES,
    served: Served | None = None,
) -> tuple[Comparison, ...]:
    """Compare all variants with the student, on the same resamples of the rows."""
    outputs = {_STUDENT: student, **{each.name: each.outputs for each in variants}}
    for name, own in outputs.items():
        if own.shape != student.shape:
            raise ValueError(f"{name} answers in shape {own.shape}, the student in {student.shape}")
    truth = student if targets is None else targets

    def statistic(own: np.ndarray) -> Statistic:
        return score(head, own, truth) if served is None else served.statistic(head, own, student)

    scores = bootstrap({name: statistic(own) for name, own in outputs.items()}, resamples)
    more = _further(head, outputs, served, resamples)
    name, scale = measure_of(head, served)
    results = []
    for each in variants:
        drop = scale.gain(scores[_STUDENT], scores[each.name]) * 100
        difference = _difference(head, each.outputs, student)
        drops = [drop, *more[each.name].values()]
        results.append(
            Comparison(
                each, scores[each.name], drop, likeness(head, each.outputs, student, served),
                _like_teacher(head, each.outputs, teacher, served), difference,
                bool(np.isfinite(difference)) and all(own.value <= max_drop + ROUNDING for own in drops), name, more[each.name],
            )
        )  # fmt: skip
    return tuple(results)


def _further(
    head: Head, outputs: Mapping[str, np.ndarray], served: Served | None, resamples: int
) -> dict[str, dict[str, Estimate]]:
    """Variant → the drops of the other scores that count, in points."""
    drops: dict[str, dict[str, Estimate]] = {name: {} for name in outputs}
    own = {} if served is None else {name: served.further(head, each) for name, each in outputs.items()}
    for score in own.get(_STUDENT, ()):
        assert served is not None
        scores = bootstrap({name: each[score] for name, each in own.items()}, resamples)
        for name in outputs:
            drops[name][score] = served.judge.scores[score].gain(scores[_STUDENT], scores[name]) * 100
    return drops


def _difference(head: Head, outputs: np.ndarray, student: np.ndarray) -> float:
    return float((outputs != student).mean()) if head.kind == "tokens" else largest_difference(outputs, student)


def _cheapest(comparisons: Sequence[Comparison]) -> Comparison:
    """The smallest variant among those that are as fast as the fastest."""
    fastest = min(each.measurement.milliseconds for each in comparisons)
    as_fast = [each for each in comparisons if each.measurement.milliseconds <= AS_FAST * fastest]
    return min(as_fast, key=lambda each: each.measurement.megabytes)


def measure_of(head: Head, served: Served | None) -> tuple[str, Score]:
    """The name of the score that decides, and how it is shown."""
    if served is not None:
        return served.name, served.judge.scores[served.name]
    return NAMES[head.kind], SCORES[NAMES[head.kind]]


def score(head: Head, outputs: np.ndarray, truth: np.ndarray) -> Statistic:
    """The score as a function of sums over rows, for the bootstrap; 1 is perfect."""
    if head.kind == "score":
        return pearson(outputs, truth)
    if head.kind == "vector":
        return mean(cosine(outputs, truth), most=1)
    if head.kind == "tokens":
        return mean((outputs == truth).astype(np.float64), most=1)
    return accuracy(Answers(outputs, truth, several=head.several))


def likeness(head: Head, one: np.ndarray, other: np.ndarray, served: Served | None = None) -> float:
    """How similar the answers of two models are; 1 if they agree."""
    if served is not None:
        statistic = served.alike(head, one, other)
    elif head.kind != "labels":
        statistic = score(head, one, other)
    else:
        blank = np.zeros_like(one) if head.several else np.zeros(len(one), dtype=int)  # agreement reads no targets
        statistic = agreement(*(Answers(each, blank, several=head.several) for each in (other, one)))
    return statistic.value


def _like_teacher(head: Head, outputs: np.ndarray, teacher: np.ndarray | None, served: Served | None) -> float | None:
    """None where the teacher's answers are not known."""
    if served is None:
        return None if teacher is None else likeness(head, outputs, teacher)
    statistic = served.like_teacher(head, outputs)
    return None if statistic is None else statistic.value


def cosine(one: np.ndarray, other: np.ndarray) -> np.ndarray:
    """(N), the cosines of the rows of two (N, D)."""
    a, b = one.astype(np.float64), other.astype(np.float64)
    return (a * b).sum(-1) / np.maximum(np.linalg.norm(a, axis=-1) * np.linalg.norm(b, axis=-1), 1e-12)


def pearson(outputs: np.ndarray, targets: np.ndarray) -> Statistic:
    """Pearson's r of (N, C) with (N, C) or (N), mean over C.

    Both are standardised first. r does not change, and fp32 sums stay precise.
    """
    x, y = (_standard(values.reshape(len(values), -1)) for values in (outputs, targets))
    return Statistic(np.concatenate([x, y, x * x, y * y, x * y], axis=1), partial(_pearson, rows=len(x)), least=-1.0)


def _standard(values: np.ndarray) -> np.ndarray:
    deviations = values.astype(np.float64) - values.mean(0, dtype=np.float64)
    return deviations / np.maximum(deviations.std(0), 1e-12)


def _pearson(sums: np.ndarray, rows: int) -> np.ndarray:
    x, y, xx, yy, xy = np.split(sums / rows, 5, axis=-1)
    with np.errstate(divide="ignore", invalid="ignore"):
        return ((xy - x * y) / np.sqrt((xx - x * x) * (yy - y * y))).mean(-1)
