"""The teacher contract: every row of teachers_table.py is run for every promise of mangakd/teachers/base.py."""

import copy
import gc
import importlib
import inspect
import pkgutil
import weakref
from pathlib import Path
from unittest.mock import Mock

import numpy as np
import pytest
import torch
import yaml
from contract.teachers_table import ELSEWHERE, ROWS, Row
from contract.tiny_models import HEAD, LABELS, SEVERAL, Teachers, config, context, encoder
from torch import nn

import mangakd.teachers
from mangakd.core.errors import UserError
from mangakd.core.outputs import Batch, Outputs
from mangakd.core.requires import Need
from mangakd.core.spec import Head
from mangakd.data.encoded import EncodedSplit
from mangakd.data.loader import TrainLoader
from mangakd.data.steps import RowSteps
from mangakd.losses.loss_set import LossSet
from mangakd.losses.output import OutputLoss
from mangakd.teachers.base import TeacherProvider
from mangakd.teachers.calibrated import calibrated
from mangakd.teachers.ensemble import EnsembleTeacher
from mangakd.teachers.local import LocalTeacher
from mangakd.teachers.options import Member, TeacherContext, TeacherOptions
from mangakd.training.optim import Optim
from mangakd.training.run_module import RunModule, Step
from mangakd.training.validation import Validation

CONF = Path(__file__).parents[2] / "conf" / "teacher"
CPU = torch.device("cpu")
each_row = pytest.mark.parametrize("row", ROWS, ids=lambda row: row.id)
each_temperature = pytest.mark.parametrize("temperature", [1.0, 2.0, 4.0])


def classes(base: type) -> set[type]:
    """Concrete subclasses of `base` in mangakd/teachers."""
    modules = [
        importlib.import_module(f"mangakd.teachers.{m.name}") for m in pkgutil.iter_modules(mangakd.teachers.__path__)
    ]
    found = {cls for module in modules for cls in vars(module).values() if inspect.isclass(cls)}
    return {cls for cls in found if issubclass(cls, base) and not inspect.isabstract(cls)}


class Case:
    """A row's provider, prepared, over tiny data. members: fresh copies of the models behind it."""

    def __init__(self, row: Row, cache: Path) -> None:
        self.row = row
        self.load = Teachers(row.head)
        self.context = context(cache, self.load)
        self.options = row.options()
        self.provider = calibrated(self.options, self.context).prepare(CPU, Need(answer=True))

    @property
    def data(self) -> EncodedSplit:
        return self.context.splits["train"]

    def batch(self, rows: list[int]) -> Batch:
        return self.data.collate(rows)

    def members(self, batch: Batch) -> np.ndarray:
        """(M, B, C) float64 in the data's label order, straight from Hugging Face models."""
        found = []
        for member in self.options.models:
            made = Teachers(self.row.head)(member)
            with torch.no_grad():
                logits = made.model(**batch["teacher"]).logits.double().numpy()
            found.append(logits[:, [made.spec.head.names.index(name) for name in self.row.head.names]])
        return np.stack(found)


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


def divergence(head: Head) -> str:
    return "mse" if head.kind == "score" else "forward_kl"


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


# --- it is no part of the student's module ----------------------------------------------------------------------------


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


# --- labels and members that do not fit ------------------------------------------------------------------------------


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
