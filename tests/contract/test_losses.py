"""The loss contract: every row of losses_table.py is run for every promise of mangakd/losses/base.py."""

import importlib
import inspect
import pkgutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from losses_case import INPUTS, MASK, SHARED, B, Case, batch_axis, bound, grads
from losses_padding import masked, pad_tokens, token_slices
from losses_table import ROWS, Row

import mangakd.losses
from mangakd.core.requires import Need
from mangakd.losses.base import LossCallback
from mangakd.losses.groups import GroupLoss
from mangakd.losses.loss_set import LossSet
from mangakd.losses.prefixes import PrefixLoss

CONF = Path(__file__).parents[2] / "conf" / "losses"
each_row = pytest.mark.parametrize("row", ROWS, ids=lambda row: row.id)


def loss_classes() -> set[type[LossCallback]]:
    modules = [
        importlib.import_module(f"mangakd.losses.{m.name}") for m in pkgutil.iter_modules(mangakd.losses.__path__)
    ]
    found = {cls for module in modules for cls in vars(module).values() if inspect.isclass(cls)}
    return {cls for cls in found if issubclass(cls, LossCallback) and cls not in (LossCallback, GroupLoss, PrefixLoss)}


# --- the table itself ------------------------------------------------------------------------------------------------


def test_every_loss_has_a_row() -> None:
    missing = loss_classes() - {row.cls for row in ROWS}
    assert not missing, f"add a row to tests/contract/losses_table.py for {missing}"
    assert len({row.id for row in ROWS}) == len(ROWS)


def test_every_loss_has_a_yaml_with_its_options_and_defaults() -> None:
    found = {}
    for path in CONF.glob("*.yaml"):
        text = path.read_text()
        ((name, entry),) = yaml.safe_load(text).items()
        assert name == path.stem and text.startswith("# ")
        found[entry.pop("_target_")] = entry
    assert set(found) == {f"{cls.__module__}.{cls.__qualname__}" for cls in loss_classes()}
    for cls in loss_classes():
        entry, default = found[f"{cls.__module__}.{cls.__qualname__}"], cls().config
        assert set(entry) == set(default)
        fixed = {option: value for option, value in entry.items() if not str(value).startswith("${")}
        assert fixed == {option: default[option] for option in fixed}


# --- each row --------------------------------------------------------------------------------------------------------


@each_row
def test_value_equals_the_reference(row: Row) -> None:
    case = Case(row)
    total, count = row.reference(case.reference_arrays())
    output = case(case.tensors())
    assert output.sum.shape == output.count.shape == () and output.sum.dtype == torch.float32
    assert not output.count.requires_grad
    assert output.count.item() == count
    assert output.sum.item() == pytest.approx(total, rel=2e-5, abs=1e-6)
    assert abs(total) > 1e-3, "a reference of 0 proves nothing"


@each_row
def test_gradient_equals_finite_differences_in_float64(row: Row) -> None:
    case = Case(row)
    tensors = case.tensors()
    case(tensors).sum.backward()
    arrays = case.reference_arrays()
    found = {name: grad.numpy() for name, grad in grads(tensors, case.learned).items()}
    found |= {f"state.{name}": p.grad.numpy() for name, p in case.loss.named_parameters()}
    for name, gradient in found.items():
        flat, expected, step = arrays[name].reshape(-1), np.zeros(arrays[name].size), 1e-5
        for i, value in enumerate(flat.copy()):
            ends = []
            for shifted in (value + step, value - step):
                flat[i] = shifted
                ends.append(row.reference(arrays)[0])
            flat[i], expected[i] = value, (ends[0] - ends[1]) / (2 * step)
        np.testing.assert_allclose(gradient.reshape(-1), expected, rtol=1e-3, atol=2e-5, err_msg=name)


@each_row
def test_padding_changes_nothing(row: Row) -> None:
    case = Case(row)
    plain, padded = case.tensors(), case.tensors()
    for name, tensor in padded.items():
        padded[name] = pad_tokens(name, tensor.detach(), case).requires_grad_(tensor.requires_grad)
    mask = torch.cat([torch.zeros(B, 1, dtype=MASK.dtype), MASK, torch.zeros(B, 2, dtype=MASK.dtype)], dim=1)
    one, two = case(plain), case(padded, mask)
    assert two.count == one.count
    torch.testing.assert_close(two.sum, one.sum, rtol=1e-5, atol=1e-6)
    one.sum.backward()
    two.sum.backward()
    for name, grad in grads(padded, case.learned).items():
        embedded = torch.zeros_like(grad)
        embedded[token_slices(name, grad.dim())] = grads(plain, [name])[name]
        torch.testing.assert_close(grad, embedded, rtol=1e-4, atol=1e-6)


@each_row
@pytest.mark.parametrize("content", [7.0, float("nan"), float("inf"), float("-inf")])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
def test_content_of_what_is_masked_changes_nothing(row: Row, content: float, dtype: torch.dtype) -> None:
    """Padded positions, and the student's logits where there is no label: loss and gradients, bit for bit."""
    case = Case(row)
    found = []
    for filled in (0.0, content):
        tensors = case.tensors(dtype)
        with torch.no_grad():
            for name in set(tensors) - set(INPUTS):
                tensors[name][masked(case, name, tensors[name], tensors)] = filled
        output = case(tensors)
        case.loss.zero_grad()
        output.sum.backward()
        gradients = {name: grad.clone() for name, grad in grads(tensors, case.learned).items()}
        gradients |= {name: p.grad.clone() for name, p in case.loss.named_parameters()}
        assert not any(grad[masked(case, name, grad, tensors)].any() for name, grad in gradients.items())
        found.append((output.sum, gradients))
    assert torch.equal(found[0][0], found[1][0])
    assert all(torch.equal(found[1][1][name], gradient) for name, gradient in found[0][1].items())


@pytest.mark.parametrize("row", [row for row in ROWS if row.cls.additive], ids=lambda row: row.id)
def test_micro_batches_add_up(row: Row) -> None:
    case = Case(row)
    whole, split = case.tensors(), case.tensors()
    expected = case(whole)
    parts = []
    for cut in (slice(0, 1), slice(1, B)):
        piece = {
            name: tensor if name in SHARED else tensor[(slice(None),) * batch_axis(name) + (cut,)]
            for name, tensor in split.items()
        }
        parts.append(case(piece, MASK[cut]))
    torch.testing.assert_close(parts[0].sum + parts[1].sum, expected.sum, rtol=1e-5, atol=1e-6)
    assert parts[0].count + parts[1].count == expected.count
    expected.sum.backward()
    (parts[0].sum + parts[1].sum).backward()
    for name in case.learned:
        torch.testing.assert_close(grads(split, [name]), grads(whole, [name]), rtol=1e-5, atol=1e-6)


@each_row
def test_count_is_a_fixed_multiple_of_the_unit(row: Row) -> None:
    """LossSet divides by the unit of the whole step; a loss that counts in another one would be scaled wrongly."""
    case = Case(row)
    ratios = set()
    for mask in (MASK, MASK[:1].expand(B, -1), torch.tensor([[1, 1, 1, 1], [1, 0, 0, 0], [1, 1, 0, 0]])):
        tensors = case.tensors()
        ratios.add(case(tensors, mask).count.item() / case.counts(tensors, mask)[case.loss.unit])
    assert len(ratios) == 1


@each_row
def test_nothing_valid_is_a_zero_with_a_graph(row: Row) -> None:
    case = Case(row)
    tensors = case.tensors()
    for name, nothing in (("labels", -100), ("grades", float("nan")), ("score", float("nan"))):
        if name in tensors:
            tensors[name] = torch.full_like(tensors[name], nothing)
    valid = 1 if case.loss.requires.student.answer and not case.loss.requires.labels else 0
    empty = {name: t if name in SHARED else t.narrow(batch_axis(name), 0, 0) for name, t in tensors.items()}
    # Nothing to skip by (soft targets fit every example): then only the empty batch is empty.
    inputs = [(empty, MASK[:0])] if valid else [(tensors, torch.zeros_like(MASK)), (empty, MASK[:0])]
    for given, mask in inputs:
        with torch.autograd.set_detect_anomaly(True):
            output = case(given, mask)
            assert output.sum.item() == 0 and output.count.item() == 0 and output.sum.requires_grad
            output.sum.backward()
        for grad in grads(tensors, case.learned).values():
            assert not grad.any()


@each_row
def test_one_empty_example_leaves_the_others(row: Row) -> None:
    """An example without any token must not put NaN into the gradients of the others."""
    case = Case(row)
    tensors, mask = case.tensors(), MASK.clone()
    mask[1] = 0
    with torch.autograd.set_detect_anomaly(True):
        case(tensors, mask).sum.backward()
    assert all(grad.isfinite().all() for grad in grads(tensors, case.learned).values())


@each_row
def test_bf16_inputs_are_computed_in_fp32(row: Row) -> None:
    case = Case(row)
    low = case.tensors(torch.bfloat16)
    if "teacher.weights" in low:
        low["teacher.weights"] = case.tensors()["teacher.weights"]
    # The same rounded numbers in fp32: what is left is the arithmetic, which must be fp32 in both.
    high = {name: t.detach().to(torch.float32) if t.dtype == torch.bfloat16 else t for name, t in low.items()}
    output = case(low)
    assert output.sum.dtype == torch.float32 and output.sum.isfinite()
    torch.testing.assert_close(output.sum, case(high).sum, rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(output.sum, case(case.tensors()).sum, rtol=5e-2, atol=5e-2)


@each_row
def test_autocast_changes_nothing_in_a_loss_set(row: Row) -> None:
    case = Case(row)
    losses = LossSet({"term": case.loss})
    tensors = case.tensors()
    outputs = [case._outputs(side, tensors, MASK) for side in ("student", "teacher")]
    arguments = (outputs[0], outputs[1] if row.teacher else None, case.batch(tensors), 0.0)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        low = losses(*arguments).total
    assert torch.equal(low, losses(*arguments).total)


@each_row
def test_state_round_trips_strictly(row: Row) -> None:
    case = Case(row)
    torch.manual_seed(1)
    other = bound(row)
    state = case.loss.state_dict()
    other.load_state_dict(state, strict=True)
    expected = case(case.tensors()).sum
    case.loss = other
    assert torch.equal(case(case.tensors()).sum, expected)
    for name in state:
        with pytest.raises(RuntimeError, match="Missing key"):
            bound(row).load_state_dict({key: value for key, value in state.items() if key != name}, strict=True)


@each_row
def test_gradients_reach_the_student_and_not_the_teacher(row: Row) -> None:
    case = Case(row)
    tensors = case.tensors()
    case(tensors).sum.backward()
    assert all(tensors[name].grad is None for name in tensors if name.startswith("teacher."))
    used = [name for name in case.learned if tensors[name].grad is not None]
    assert used and all(tensors[name].grad.any() for name in used)
    assert all(p.grad is not None and p.grad.any() for p in case.loss.parameters())


@each_row
def test_config_builds_the_same_loss(row: Row) -> None:
    case = Case(row)
    config = case.loss.config
    assert yaml.safe_load(yaml.safe_dump(config)) == config, "plain data only"
    again = bound(replace(row, options=config))
    again.load_state_dict(case.loss.state_dict())
    expected = case(case.tensors()).sum
    case.loss = again
    assert torch.equal(case(case.tensors()).sum, expected)
    assert row.cls.citation


@each_row
def test_declared_needs_match(row: Row) -> None:
    loss = bound(row)
    assert loss.needs_teacher == (loss.requires.teacher != Need())
