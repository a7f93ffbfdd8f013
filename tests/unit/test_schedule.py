"""Schedules are pure functions of progress, clamped to its ends."""

import pickle

import pytest

from mangakd.core.schedule import Cosine, Linear, Schedule, at


@pytest.mark.parametrize(
    ("schedule", "progress", "value"),
    [
        (0.3, 0.7, 0.3),
        (1, 0.0, 1.0),
        (Linear(1.0, 3.0), 0.0, 1.0),
        (Linear(1.0, 3.0), 0.25, 1.5),
        (Linear(1.0, 3.0), 1.0, 3.0),
        (Cosine(1.0, 0.0), 0.0, 1.0),
        (Cosine(1.0, 0.0), 0.5, 0.5),
        (Cosine(1.0, 0.0), 1 / 3, 0.75),
        (Cosine(0.0, 2.0), 1.0, 2.0),
        (lambda progress: progress**2, 0.5, 0.25),
    ],
)
def test_values(schedule: Schedule, progress: float, value: float) -> None:
    found = at(schedule, progress)
    assert found == pytest.approx(value) and type(found) is float


@pytest.mark.parametrize("cls", [Linear, Cosine])
def test_clamped_and_picklable(cls: type) -> None:
    schedule = cls(1.0, 5.0)
    assert at(schedule, -0.5) == pytest.approx(1.0) and at(schedule, 1.5) == pytest.approx(5.0)
    assert pickle.loads(pickle.dumps(schedule)) == schedule
