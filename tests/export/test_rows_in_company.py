"""Rounding is no dependence, and what is not finite is one."""

from dataclasses import replace

import numpy as np
import pytest

from mangakd.core.spec import Head
from mangakd.export.company import compare

HEAD = Head.of_labels(("refund", "order"))
ALONE = np.array([[2.0, -8.0], [0.5, 1.0]], dtype=np.float32)


@pytest.mark.parametrize(("moved", "independent"), [(0.0, True), (0.04, True), (0.4, False), (np.nan, False)])
def test_the_bound_is_a_share_of_the_largest_output(moved: float, independent: bool) -> None:
    together = ALONE.copy()
    together[1, 0] += moved
    found = compare(ALONE, together, 0.0, HEAD)
    assert found.independent is independent and found.texts == 2
    if np.isfinite(moved):
        assert found.output == pytest.approx(moved, abs=1e-6)


@pytest.mark.parametrize(("moved", "independent"), [(1e-6, True), (1e-3, False), (np.inf, False)])
def test_other_texts_in_a_batch_of_the_same_shape_may_move_nothing(moved: float, independent: bool) -> None:
    assert compare(ALONE, ALONE, moved, HEAD).independent is independent


def test_probabilities_are_compared_where_there_are_some() -> None:
    together = ALONE + np.array([[0, 0], [1, 0]], dtype=np.float32)
    single = 1 / (1 + np.exp(0.5)) - 1 / (1 + np.exp(-0.5))
    assert compare(ALONE, together, 0.0, HEAD).probability == pytest.approx(abs(single))
    several = 1 / (1 + np.exp(-1.5)) - 1 / (1 + np.exp(-0.5))
    assert compare(ALONE, together, 0.0, replace(HEAD, several=True)).probability == pytest.approx(several)
    assert compare(ALONE, together, 0.0, Head("score", 2)).probability is None
