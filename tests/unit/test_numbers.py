"""The largest difference of two arrays; what is not finite is infinitely far from everything."""

import numpy as np
import pytest

from mangakd.core.numbers import largest_difference


def test_the_largest_of_all_entries() -> None:
    one = np.array([[1.0, -2.0], [0.5, 3.0]], dtype=np.float32)
    assert largest_difference(one, one) == 0
    assert largest_difference(one, one + np.array([[0, 0.25], [-4, 1]])) == 4
    assert largest_difference(one[:0], one[:0]) == 0


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_what_is_not_finite_is_infinitely_far(value: float) -> None:
    one = np.array([0.0, value])
    for other in (np.zeros(2), one):
        assert largest_difference(one, other) == largest_difference(other, one) == np.inf
