"""The teacher contract: labels are aligned by name, and labels, members and weights that do not fit are refused."""

from pathlib import Path

import pytest
import torch
from contract.teachers_case import CPU
from contract.teachers_table import ROWS
from contract.tiny_models import HEAD, LABELS, SEVERAL, Teachers, context

from mangakd.core.errors import UserError
from mangakd.core.spec import Head
from mangakd.teachers.ensemble import EnsembleTeacher
from mangakd.teachers.local import LocalTeacher
from mangakd.teachers.options import Member, TeacherContext


def test_labels_are_aligned_by_name_and_other_labels_refused() -> None:
    made = Teachers()(Member("bert", 1))
    assert made.spec.head.names == LABELS[::-1]
    batch = {"teacher": {"input_ids": torch.tensor([[2, 9, 3]]), "attention_mask": torch.ones(1, 3, dtype=torch.long)}}
    raw = made(batch["teacher"]).logits
    torch.testing.assert_close(LocalTeacher(made, HEAD)(batch).logits, raw.flip(-1), rtol=0, atol=0)
    with pytest.raises(UserError, match=r"only the teacher has track, only the data has other.*teacher\.labels"):
        LocalTeacher(made, Head.of_labels((*LABELS[:4], "other")))
    with pytest.raises(UserError, match="5 against 4"):
        LocalTeacher(made, Head.of_labels(LABELS[:4]))


def test_members_that_differ_are_refused(tmp_path: Path) -> None:
    load = Teachers()
    other = Teachers(SEVERAL)
    found = context(tmp_path, load)
    mixed = TeacherContext(
        HEAD, lambda member: (other if member.seed else load)(member), found.splits, tmp_path, CPU, 8, found.progress
    )
    options = ROWS[2].options()
    with pytest.raises(
        UserError, match=r"fine-tuned for multi_label_class.*, any number of them; the task needs single_label_class"
    ):
        options.provider(mixed)
    one, two = LocalTeacher(load(Member("bert", 0)), HEAD), LocalTeacher(other(Member("bert", 2)), SEVERAL)
    with pytest.raises(UserError, match=r"differ in head: bert 0 has 5 labels .*; bert 2 has 5 labels .*any number"):
        EnsembleTeacher([one, two])


@pytest.mark.parametrize("weights", [[1, 2], [1, -1, 1], [0, 0, 0]], ids=str)
@pytest.mark.parametrize("id", ["ensemble, probabilities", "cached, ensemble"])
def test_weights_that_do_not_fit_are_refused(id: str, weights: list[float], tmp_path: Path) -> None:
    options = next(row for row in ROWS if row.id == id).options()
    options.weights = weights  # type: ignore[attr-defined]
    with pytest.raises(UserError, match=r"teacher\.weights=.*3 numbers ≥ 0"):
        options.provider(context(tmp_path, Teachers()))
