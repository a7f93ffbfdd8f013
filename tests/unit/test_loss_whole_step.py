"""A loss that compares the rows of a step with each other, where a step is computed in parts."""

import pytest

from mangakd.core.errors import UserError
from mangakd.losses.hard_label import HardLabelLoss
from mangakd.losses.loss_set import LossSet


class Contrast(HardLabelLoss):
    additive = False


def test_a_loss_of_the_whole_step_is_refused_where_steps_have_parts() -> None:
    losses = LossSet({"near": Contrast(), "hard_label": HardLabelLoss()})
    losses.check_parts(1, "")
    LossSet({"hard_label": HardLabelLoss()}).check_parts(8, "")
    with pytest.raises(UserError, match=r"losses near compare .* in 2 parts .* Set this\.$"):
        losses.check_parts(2, "Set this.")
