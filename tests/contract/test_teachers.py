"""The teacher contract, what a teacher answers: every row of teachers_table.py for every promise of mangakd/teachers/base.py."""

import importlib
import inspect
import pkgutil
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from contract.teachers_case import CPU, Case, divergence
from contract.teachers_table import ELSEWHERE, ROWS, Row

import mangakd.teachers
from mangakd.core.outputs import Outputs
from mangakd.core.requires import Need
from mangakd.core.spec import Head
from mangakd.data.encoded import EncodedSplit
from mangakd.data.loader import TrainLoader
from mangakd.data.steps import RowSteps
from mangakd.losses.output import OutputLoss
from mangakd.teachers.base import TeacherProvider
from mangakd.teachers.calibrated import calibrated
from mangakd.teachers.options import TeacherOptions

CONF = Path(__file__).parents[2] / "conf" / "teacher"
each_row = pytest.mark.parametrize("row", ROWS, ids=lambda row: row.id)
each_temperature = pytest.mark.parametrize("temperature", [1.0, 2.0, 4.0])


def classes(base: type) -> set[type]:
    """Concrete subclasses of `base` in mangakd/teachers."""
    modules = [
        importlib.import_module(f"mangakd.teachers.{m.name}") for m in pkgutil.iter_modules(mangakd.teachers.__path__)
    ]
    found = {cls for module in modules for cls in vars(module).values() if inspect.isclass(cls)}
    return {cls for cls in found if issubclass(cls, base) and not inspect.isabstract(cls)}


@pytest.fixture(params=ROWS, ids=lambda row: row.id)
def case(request: pytest.FixtureRequest, tmp_path: Path) -> Case:
    return Case(request.param, tmp_path)


# --- the table itself ------------------------------------------------------------------------------------------------


def test_every_provider_and_every_options_class_has_a_row() -> None:
    missing = classes(TeacherProvider) - {row.provider for row in ROWS} - {*ELSEWHERE}
    assert not missing, f"add a row to tests/contract/teachers_table.py for {missing}"
    missing = classes(TeacherOptions) - {type(row.options()) for row in ROWS} - {*ELSEWHERE}
    assert not missing, f"add a row to tests/contract/teachers_table.py for {missing}"
    assert len({row.id for row in ROWS}) == len(ROWS)


def test_every_options_class_has_a_yaml() -> None:
    found = {yaml.safe_load(path.read_text()).get("_target_") for path in CONF.glob("[!_]*.yaml")}
    assert found == {f"{cls.__module__}.{cls.__qualname__}" for cls in classes(TeacherOptions)}


# --- what it answers -------------------------------------------------------------------------------------------------


def test_shapes_names_and_what_it_gives(case: Case) -> None:
    row, provider = case.row, case.provider
    assert isinstance(provider, row.provider)
    assert provider.spec.head == row.head
    assert provider.members == len(row.seeds)
    layers = provider.spec.layers
    everything = Need(True, frozenset(range(layers + 1)), frozenset(range(1, layers + 1)))
    assert provider.gives == case.options.gives(provider.spec) == (everything if row.gives == "all" else Need(True))
    answer = provider.prepare(CPU, provider.gives)(case.batch([3, 1, 2]))
    assert answer.logits.shape == (3, row.head.outputs)
    assert torch.equal(answer.mask, case.batch([3, 1, 2])["teacher"]["attention_mask"])
    assert set(answer.hidden) == set(provider.gives.hidden) and set(answer.attention) == set(provider.gives.attention)
    if answer.members is not None:
        assert answer.members.shape == (len(row.seeds), 3, row.head.outputs)
    tensors = [answer.logits, *answer.hidden.values(), *(tap.query for tap in answer.attention.values())]
    assert not any(t.requires_grad or t.is_inference() for t in tensors if t is not None)


def sigmoid(z: np.ndarray) -> np.ndarray:
    return 1 / (1 + np.exp(-z))


def smoothed(members: np.ndarray, share: float, several: bool) -> np.ndarray:
    """Logits of smoothed probabilities (mangakd/teachers/calibrated.py)."""
    if several:
        p = sigmoid(members).clip(share, 1 - share)
        return np.log(p / (1 - p))
    p = np.exp(members) / np.exp(members).sum(-1, keepdims=True)
    largest, even = p.max(-1, keepdims=True), 1 / p.shape[-1]
    part = ((largest - 1 + share) / (largest - even)).clip(0)
    assert 0.1 < (part > 0).mean() < 1, "rows that are all smoothed, or none, prove nothing"
    return np.log((1 - part) * p + part * even)


@each_temperature
@each_row
def test_probabilities_equal_numpy_in_float64(row: Row, temperature: float, tmp_path: Path) -> None:
    case = Case(row, tmp_path)
    batch = case.batch(list(range(12)))
    weights = np.array(row.weights)[:, None, None]
    members = case.members(batch)
    if row.combine == "standardised":
        validation = case.context.splits["validation"]
        known = case.members(validation.collate(range(len(validation))))
        members = (members - known.mean(1, keepdims=True)) / known.std(1, keepdims=True)
        assert np.ptp(known.std(1)) > 0.01, "members on one scale prove nothing"
    if row.smooth:
        members = smoothed(members, row.smooth, row.head.several)
    if row.combine == "logits":
        members, weights = (weights * members).sum(0, keepdims=True), np.ones((1, 1, 1))
    answer = case.provider(batch)
    if row.head.kind == "score":
        np.testing.assert_allclose(answer.logits.numpy(), (weights * members).sum(0), rtol=1e-5, atol=1e-6)
        return
    if row.head.several:
        on, off = (part.exp().numpy() for part in answer.log_sigmoid(temperature))
        np.testing.assert_allclose(on, (weights * sigmoid(members / temperature)).sum(0), rtol=1e-5, atol=1e-6)
        np.testing.assert_allclose(on + off, 1, rtol=1e-5)
    else:
        raised = np.exp(members / temperature)
        expected = (weights * raised / raised.sum(-1, keepdims=True)).sum(0)
        np.testing.assert_allclose(answer.log_probs(temperature).exp().numpy(), expected, rtol=1e-5, atol=1e-6)
        assert expected.std() > 0.03, "equal probabilities prove nothing"
    # Its logits say the same as its probabilities at T = 1.
    plain = Outputs(answer.logits, answer.mask)
    at_one = [o.log_sigmoid()[0] if row.head.several else o.log_probs() for o in (plain, answer)]
    torch.testing.assert_close(at_one[0], at_one[1], rtol=1e-5, atol=1e-5)


def losses_by_key(provider: TeacherProvider, data: EncodedSplit, head: Head, size: int, seed: int, t: float) -> dict:
    """OutputLoss of every single row against logits that depend on the row alone, under one order of batches."""
    spec = provider.spec
    loss = OutputLoss(temperature=t, divergence=divergence(head))
    loss.bind(spec, spec)
    found: dict[int, float] = {}
    table = torch.from_numpy(np.random.default_rng(7).normal(size=(256, head.outputs))).float()
    for batch in TrainLoader(data, RowSteps(size), seed):
        answer, logits = provider(batch), table[batch["key"] % 256]
        for i, key in enumerate(batch["key"].tolist()):
            members = None if answer.members is None else answer.members[:, i : i + 1]
            one = Outputs(answer.logits[i : i + 1], answer.mask[i : i + 1], members=members, weights=answer.weights)
            result = loss(Outputs(logits[i : i + 1], answer.mask[i : i + 1]), one, batch)
            found[key] = float(result.sum / result.count)
    return found


@each_temperature
@pytest.mark.parametrize("row", [row for row in ROWS if row.live], ids=lambda row: row.id)
def test_stored_and_live_teachers_give_the_same_loss(row: Row, temperature: float, tmp_path: Path) -> None:
    """Shuffled, in other batches and so padded otherwise: equal to 1e-5, which is what other shapes do to fp32."""
    case = Case(row, tmp_path)
    assert row.live is not None
    live = calibrated(row.live(), case.context).prepare(CPU, Need(answer=True))
    stored = losses_by_key(case.provider, case.data, row.head, 5, 1, temperature)
    expected = losses_by_key(live, case.data, row.head, 16, 2, temperature)
    assert stored.keys() == expected.keys() and len(stored) == len(case.data)
    for key, value in expected.items():
        assert stored[key] == pytest.approx(value, rel=1e-5, abs=1e-5)
    assert np.std(list(expected.values())) > 1e-2


def test_a_fingerprint_is_of_content(case: Case, tmp_path: Path) -> None:
    again = calibrated(case.row.options(), case.context)
    assert again.fingerprint == case.provider.fingerprint
    if case.row.live is not None:
        assert calibrated(case.row.live(), case.context).fingerprint == case.provider.fingerprint
    other = case.row.options()
    other.path = "distilbert"
    if hasattr(other, "paths"):
        other.paths = None
    assert calibrated(other, case.context).fingerprint != case.provider.fingerprint
