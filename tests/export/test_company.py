"""Rounding is no dependence, and what is not finite is one."""

import numpy as np
import pytest

from mangakd.export.company import compare

ALONE = np.array([[2.0, -8.0], [0.5, 1.0]], dtype=np.float32)


@pytest.mark.parametrize(("moved", "independent"), [(0.0, True), (0.004, True), (0.04, False), (np.nan, False)])
def test_the_bound_is_a_share_of_the_largest_output(moved: float, independent: bool) -> None:
    together = ALONE.copy()
    together[1, 0] += moved
    found = compare(ALONE, together, "single_label")
    assert found.independent is independent and found.texts == 2
    if np.isfinite(moved):
        assert found.output == pytest.approx(moved, abs=1e-6)


def test_probabilities_are_compared_where_there_are_some() -> None:
    together = ALONE + np.array([[0, 0], [1, 0]], dtype=np.float32)
    single = 1 / (1 + np.exp(0.5)) - 1 / (1 + np.exp(-0.5))
    assert compare(ALONE, together, "single_label").probability == pytest.approx(abs(single))
    several = 1 / (1 + np.exp(-1.5)) - 1 / (1 + np.exp(-0.5))
    assert compare(ALONE, together, "multi_label").probability == pytest.approx(several)
    assert compare(ALONE, together, "regression").probability is None
