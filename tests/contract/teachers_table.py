"""One row for each way a teacher can answer. test_teachers*.py run every row for every promise of a TeacherProvider.

A new teacher kind needs a row here: its options, the provider they make, what it gives, and which members with which weights
it stands for. What it must answer is then computed from the members' own logits in float64 numpy.
"""

from collections.abc import Callable
from dataclasses import dataclass

from contract.tiny_models import HEAD, SCORE, SEVERAL

from mangakd.core.spec import Head
from mangakd.teachers.base import TeacherProvider
from mangakd.teachers.cached import Cached, CachedTeacher
from mangakd.teachers.calibrated import CalibratedTeacher
from mangakd.teachers.concatenated import ConcatenatedTeacher
from mangakd.teachers.ensemble import Ensemble, EnsembleTeacher
from mangakd.teachers.local import Local, LocalTeacher
from mangakd.teachers.lookup import LookupTeacher
from mangakd.teachers.options import TeacherOptions
from mangakd.teachers.probabilities import Probabilities
from mangakd.teachers.scores import Scores
from mangakd.teachers.vectors import Vectors


@dataclass(frozen=True)
class Row:
    """options: makes fresh ones. seeds, weights: of the members. live: how the same teacher is had without a store. smooth: as in
    the options. tests/unit/test_calibrated_teacher.py fits temperatures."""

    id: str
    options: Callable[[], TeacherOptions]
    provider: type[TeacherProvider]
    gives: str = "logits"  # or "all"
    seeds: tuple[int, ...] = (0,)
    weights: tuple[float, ...] = (1.0,)
    combine: str = "probabilities"
    head: Head = HEAD
    live: Callable[[], TeacherOptions] | None = None
    smooth: float = 0.0


# They answer from files, or with vectors: tests/unit/test_{score,vector,probability,concatenated}_teacher.py.
ELSEWHERE = (Scores, Vectors, Probabilities, LookupTeacher, ConcatenatedTeacher)
THREE = (0, 1, 2)
EQUAL = (1 / 3, 1 / 3, 1 / 3)
UNEQUAL = (0.5, 0.2, 0.3)


def local(seed: int = 1) -> Local:
    return Local(path="bert", seed=seed)


def ensemble(**options: object) -> Ensemble:
    return Ensemble(path="bert", seeds=THREE, **options)  # type: ignore[arg-type]


def cached(**options: object) -> Cached:
    return Cached(path="bert", seeds=THREE, **options)  # type: ignore[arg-type]


ROWS = [
    Row("local", local, LocalTeacher, gives="all", seeds=(1,)),
    Row("local, multi-label", local, LocalTeacher, gives="all", seeds=(1,), head=SEVERAL),
    Row("ensemble, probabilities", ensemble, EnsembleTeacher, seeds=THREE, weights=EQUAL),
    Row(
        "ensemble, weights",
        lambda: ensemble(weights=[5, 2, 3]),
        EnsembleTeacher,
        seeds=THREE,
        weights=UNEQUAL,
    ),
    Row(
        "ensemble, a weight of zero",
        lambda: ensemble(weights=[1, 0, 3]),
        EnsembleTeacher,
        seeds=THREE,
        weights=(0.25, 0.0, 0.75),
    ),
    Row(
        "ensemble, logits",
        lambda: ensemble(weights=[5, 2, 3], combine="logits"),
        EnsembleTeacher,
        seeds=THREE,
        weights=UNEQUAL,
        combine="logits",
    ),
    Row(
        "ensemble, multi-label",
        lambda: ensemble(weights=[5, 2, 3]),
        EnsembleTeacher,
        seeds=THREE,
        weights=UNEQUAL,
        head=SEVERAL,
    ),
    Row("local, score", local, LocalTeacher, gives="all", seeds=(1,), head=SCORE),
    Row(
        "ensemble, score",
        lambda: ensemble(weights=[5, 2, 3]),
        EnsembleTeacher,
        seeds=THREE,
        weights=UNEQUAL,
        head=SCORE,
    ),
    Row(
        "ensemble, score, standardised",
        lambda: ensemble(weights=[5, 2, 3], combine="standardised"),
        EnsembleTeacher,
        seeds=THREE,
        weights=UNEQUAL,
        combine="standardised",
        head=SCORE,
    ),
    Row(
        "ensemble of folders",
        lambda: Ensemble(path="bert", paths=["bert", "distilbert"], seeds=(3,)),
        EnsembleTeacher,
        seeds=(3, 3),
        weights=(0.5, 0.5),
    ),
    Row(
        "local, smooth",
        lambda: Local(path="bert", seed=1, smooth=0.27),
        CalibratedTeacher,
        gives="all",
        seeds=(1,),
        smooth=0.27,
    ),
    Row(
        "ensemble, multi-label, smooth",
        lambda: ensemble(weights=[5, 2, 3], smooth=0.45),
        CalibratedTeacher,
        seeds=THREE,
        weights=UNEQUAL,
        head=SEVERAL,
        smooth=0.45,
    ),
    Row(
        "cached, ensemble, smooth",
        lambda: cached(weights=[5, 2, 3], smooth=0.27),
        CalibratedTeacher,
        seeds=THREE,
        weights=UNEQUAL,
        live=lambda: ensemble(weights=[5, 2, 3], smooth=0.27),
        smooth=0.27,
    ),
    Row("cached", lambda: Cached(path="bert", seeds=(1,)), CachedTeacher, seeds=(1,), live=local),
    Row(
        "cached, ensemble",
        lambda: cached(weights=[5, 2, 3]),
        CachedTeacher,
        seeds=THREE,
        weights=UNEQUAL,
        live=lambda: ensemble(weights=[5, 2, 3]),
    ),
    Row(
        "cached, ensemble, logits",
        lambda: cached(combine="logits"),
        CachedTeacher,
        seeds=THREE,
        weights=EQUAL,
        combine="logits",
        live=lambda: ensemble(combine="logits"),
    ),
    Row(
        "cached, ensemble, multi-label",
        lambda: cached(weights=[1, 0, 3]),
        CachedTeacher,
        seeds=THREE,
        weights=(0.25, 0.0, 0.75),
        head=SEVERAL,
        live=lambda: ensemble(weights=[1, 0, 3]),
    ),
    Row(
        "cached, ensemble, score",
        lambda: cached(weights=[1, 0, 3]),
        CachedTeacher,
        seeds=THREE,
        weights=(0.25, 0.0, 0.75),
        head=SCORE,
        live=lambda: ensemble(weights=[1, 0, 3]),
    ),
    Row(
        "cached, ensemble, score, standardised",
        lambda: cached(combine="standardised"),
        CachedTeacher,
        seeds=THREE,
        weights=EQUAL,
        combine="standardised",
        head=SCORE,
        live=lambda: ensemble(combine="standardised"),
    ),
]
