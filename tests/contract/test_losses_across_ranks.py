"""A loss that declares `gathers` has on two ranks the value and the gradient of one, however many rows each rank has."""

from pathlib import Path

import pytest
import torch
from losses_case import MASK, B, Case, batch_axis, grads
from losses_table import ROWS, Row
from torch import Tensor

from mangakd.core import ranks
from mangakd.core.outputs import Outputs
from mangakd.losses import across_ranks
from mangakd.losses.loss_set import LossSet
from mangakd.training import launch
from mangakd.training.hardware import Hardware

TWO = Hardware(accelerator="cpu", devices=2, strategy="ddp")
COMPARING = [row for row in ROWS if row.cls.gathers is not None]
FIRST = {"unequal": 1, "none on the second": B}  # rows of the first rank


def total(case: Case, tensors: dict[str, Tensor], rows: list[int], scale: float | None = None) -> Tensor:
    """scale: this rank's share of a step of all rows; None: the step is on this rank alone."""
    cut = {name: each[(slice(None),) * batch_axis(name) + (rows,)] for name, each in tensors.items()}
    student, teacher, batch = case.inputs(cut, MASK[rows])
    if scale is not None:
        batch["scale"] = {"rows": scale, case.loss.unit: scale}
    return LossSet({"loss": case.loss})(student, teacher, batch, 0.0, across=scale is not None).total


def compare(row: Row, first: int) -> None:
    """This rank's total, and the gradient at its rows after the mean over ranks, with those of one process."""
    case, everyone = Case(row), list(range(B))
    mine = everyone[:first] if ranks.is_first() else everyone[first:]
    alone, together = case.tensors(), case.tensors()
    expected = total(case, alone, everyone)
    # A rank without a row takes one that another rank has, at a scale of 0.
    value = total(case, together, mine or [0], scale=2 * len(mine) / B)
    torch.testing.assert_close(value, expected, rtol=1e-5, atol=1e-6)
    expected.backward()
    value.backward()
    for name, gradient in grads(alone, case.learned).items():
        gradient[[i for i in everyone if i not in mine]] = 0
        torch.testing.assert_close(grads(together, [name])[name] / 2, gradient, rtol=1e-4, atol=1e-6)


def gather_members(first: int) -> None:
    """An ensemble's logits are gathered by row, whichever axis holds the rows."""
    members = torch.arange(2.0 * B).view(2, B, 1)  # two members, one class
    mine = slice(0, first) if ranks.is_first() else slice(first, B)
    own = Outputs(members.mean(0)[mine], MASK[mine], members=members[:, mine], weights=torch.tensor([0.5, 0.5]))
    whole, _, _ = across_ranks.gather(own, None, {"progress": 0.0}, ())
    assert whole.members is not None and torch.equal(whole.members, members)
    assert torch.equal(whole.answer, members.mean(0))


def part(folder: Path, first: int) -> None:
    gather_members(first)
    for row in COMPARING:
        compare(row, first)
    (folder / f"{ranks.rank()}.done").touch()


@pytest.mark.usefixtures("forked_ranks")
@pytest.mark.parametrize("first", FIRST.values(), ids=FIRST)
def test_value_and_gradient_are_those_of_one_process(first: int, tmp_path: Path) -> None:
    assert len(COMPARING) > 1
    launch.start(part, (tmp_path, first), TWO, tmp_path, no_user_error)
    assert len([*tmp_path.glob("*.done")]) == 2


def no_user_error(error: BaseException) -> str | None:
    return None
