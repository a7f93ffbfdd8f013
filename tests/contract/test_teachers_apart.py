"""The teacher contract: a teacher is no part of the student's module, stays frozen in eval mode, and lets go of its models."""

import copy
import gc
import weakref
from pathlib import Path
from unittest.mock import Mock

import pytest
from contract.teachers_case import Case, divergence
from contract.teachers_table import ROWS, Row
from contract.tiny_models import Teachers, config, context, encoder
from torch import nn

from mangakd.losses.loss_set import LossSet
from mangakd.losses.output import OutputLoss
from mangakd.training.optim import Optim
from mangakd.training.run_module import RunModule, Step
from mangakd.training.validation import Validation


@pytest.fixture(params=ROWS, ids=lambda row: row.id)
def case(request: pytest.FixtureRequest, tmp_path: Path) -> Case:
    return Case(request.param, tmp_path)


def test_it_is_no_part_of_the_module_that_holds_it(case: Case) -> None:
    student = encoder(config("bert", layers=2), head=case.row.head)
    losses = LossSet({"output": OutputLoss(divergence=divergence(case.row.head))})
    losses.bind(student.spec, case.provider.spec)
    module = RunModule(student, losses, case.provider, Optim(), Mock(Validation), Step(1, 8))
    assert not isinstance(case.provider, nn.Module)
    held = {id(p) for made in case.load.loaded for p in made.parameters()}
    assert not held & {id(p) for p in module.parameters()}
    assert set(module.state_dict()) == {f"student.{name}" for name in student.state_dict()}
    assert all(name.split(".")[0] == "student" or name.startswith("losses") for name, _ in module.named_parameters())
    assert copy.deepcopy(case.provider) is case.provider
    assert copy.deepcopy(module).teacher is case.provider
    module.train()
    case.provider(case.batch([0]))  # training mode of the module does not reach the teacher


@pytest.mark.parametrize("row", [row for row in ROWS if not row.live], ids=lambda row: row.id)
def test_eval_and_frozen_are_asserted_at_every_call(row: Row, tmp_path: Path) -> None:
    case = Case(row, tmp_path)
    batch = case.batch([0, 1])
    case.provider(batch)
    taught = case.load.loaded[-1]
    dropout = next(m for m in taught.modules() if isinstance(m, nn.Dropout))
    dropout.train()
    with pytest.raises(RuntimeError, match="switched to training mode"):
        case.provider(batch)
    dropout.eval()
    parameter = next(taught.parameters()).requires_grad_(True)
    with pytest.raises(RuntimeError, match="require gradients"):
        case.provider(batch)
    parameter.requires_grad_(False)
    case.provider(batch)


@pytest.mark.parametrize("row", [row for row in ROWS if row.live], ids=lambda row: row.id)
def test_a_stored_teacher_lets_the_models_go(row: Row, tmp_path: Path) -> None:
    load = Teachers(row.head)
    found = context(tmp_path, load)
    provider = row.options().provider(found)
    models = [weakref.ref(made) for made in load.loaded]
    assert len(models) == len(row.seeds)
    load.loaded.clear()
    gc.collect()
    assert not any(model() for model in models)
    assert provider(found.splits["train"].collate([0])).logits.shape == (1, row.head.outputs)
