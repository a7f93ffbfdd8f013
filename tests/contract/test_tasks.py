"""The task contract: every row of tasks_table.py is run for every promise of mangakd/tasks/base.py."""

import importlib
import inspect
import pkgutil
from collections.abc import Sequence
from functools import cached_property
from pathlib import Path

import numpy as np
import pytest
import tiny_language
import tiny_seq2seq
import torch
from hydra.utils import instantiate
from omegaconf import OmegaConf
from tasks_table import ROWS, Row, rows
from tiny_models import Teachers, config, encoder, silent, texts
from torch import Tensor

import mangakd.tasks
from mangakd.core.errors import UserError
from mangakd.core.outputs import Batch, Outputs
from mangakd.core.requires import Need
from mangakd.core.spec import Head
from mangakd.core.token_logits import FromStates, LmHead
from mangakd.data.encoded import EncodedSplit, joined
from mangakd.data.rows import Rows, inputs
from mangakd.data.sequence_texts import SequenceTexts
from mangakd.data.source import Corpus
from mangakd.losses.base import ALWAYS
from mangakd.losses.loss_set import LossSet
from mangakd.models.encoder import Encoder
from mangakd.models.late import mark
from mangakd.runs.texts import Tokeniser
from mangakd.tasks.base import Task
from mangakd.teachers.cached import Cached
from mangakd.teachers.local import Local
from mangakd.teachers.options import TeacherContext

N, CPU = 12, torch.device("cpu")
each_row = pytest.mark.parametrize("row", ROWS, ids=lambda row: row.id)
# Nothing finds the answer of a language model by the text that it reads.
each_text_row = pytest.mark.parametrize("row", [row for row in ROWS if not row.tokens], ids=lambda row: row.id)
each_labelled_row = pytest.mark.parametrize("row", [row for row in ROWS if row.labels], ids=lambda row: row.id)


def task_classes() -> set[type[Task]]:
    modules = pkgutil.walk_packages(mangakd.tasks.__path__, "mangakd.tasks.")
    members = [cls for module in modules for cls in vars(importlib.import_module(module.name)).values()]
    return {cls for cls in members if inspect.isclass(cls) and issubclass(cls, Task) and not inspect.isabstract(cls)}


def test_every_task_has_a_row() -> None:
    assert task_classes() <= {type(row.make()) for row in ROWS}, "add a row to tests/contract/tasks_table.py"
    assert len({row.id for row in ROWS}) == len(ROWS)


class Case:
    """A row with a prepared corpus and everything that is made of it."""

    def __init__(self, row: Row, cache: Path) -> None:
        self.row, self.cache, self.task = row, cache, row.make()

    def corpus(self, change: str | None = None) -> Corpus:
        train = rows(self.row, N, texts(N, 0), None if change is None else self.row.refused[change][0])
        held_out = [rows(self.row, N, texts(N, seed)) for seed in (1, 2)]
        unlabelled = train.only(inputs(self.task.columns))
        return Corpus("made up", train, *held_out, unlabelled)

    @cached_property
    def prepared(self) -> Corpus:
        return self.task.prepare(self.corpus())

    @cached_property
    def head(self) -> Head:
        return self.task.head(self.prepared, self.row.reader())

    @property
    def tokenise(self) -> Tokeniser:
        late = self.row.late
        return Tokeniser(self.row.reader(), self.row.reader(), self.row.most, self.cache, late, late)

    def encode(self, part: Rows) -> EncodedSplit:
        return self.task.encode(part, self.head, self.tokenise)

    @cached_property
    def split(self) -> EncodedSplit:
        return self.encode(self.prepared.train)

    def own_loss(self, student: Encoder) -> LossSet:
        losses = LossSet({"own": self.task.own_loss()})
        losses.bind(student.spec, None)
        return losses

    def values(self, answers: dict[str, Tensor], teacher: dict[str, Tensor] | None = None) -> dict[str, float]:
        own, its = ({name: each.numpy() for name, each in (side or {}).items()} for side in (answers, teacher))
        return self.task.judge.values(self.head, own, self.split.columns, its or None)


@pytest.fixture
def case(row: Row, tmp_path: Path) -> Case:
    return Case(row, tmp_path)


def student(case: Case) -> Encoder:
    if case.head.source:
        return tiny_seq2seq.encoder("t5", vocab_size=len(case.row.reader()))
    if case.row.tokens:
        return tiny_language.encoder("llama", vocab_size=len(case.row.reader()), max_position_embeddings=case.row.most)
    return encoder(mark(config("bert", layers=1), case.row.late), case.head)


@each_row
def test_the_yaml_makes_the_task(row: Row, case: Case) -> None:
    content = OmegaConf.merge(OmegaConf.load(row.yaml), OmegaConf.from_dotlist([*row.options]))
    task = instantiate(content.get("task", content))
    assert type(task) is type(case.task) and type(task.judge) is type(case.task.judge)
    assert (task.name, task.kind, task.monitor) == (case.task.name, case.task.kind, case.task.monitor)
    assert task.monitor in task.judge.monitors and task.judge.main in task.judge.scores
    assert set(task.judge.monitors) | set(task.judge.watched) <= set(task.judge.scores)
    assert case.head.kind == task.kind
    assert set(row.columns(1)) | set(row.inputs) == set(task.columns)
    assert [name for name, kind in task.columns.items() if kind == "text"] == list(row.inputs)


@each_row
def test_prepare_refuses_what_the_task_cannot_use(row: Row, case: Case) -> None:
    assert row.refused
    for what, (_, expected) in row.refused.items():
        with pytest.raises(UserError, match=expected):
            pytest.fail(f"{what}: {case.task.prepare(case.corpus(what))}")


@each_row
def test_a_batch_holds_what_was_encoded(row: Row, case: Case) -> None:
    split, chosen = case.split, [7, 2, 5]
    assert set(split.units) == {*ALWAYS, *case.task.units}
    assert len(split) == N and all(len(values) == N for values in (*split.columns.values(), *split.units.values()))
    batch = split.collate(chosen)
    for name, values in split.columns.items():
        np.testing.assert_array_equal(batch[name].numpy(), values[chosen])
    first = batch["first"].tolist() if "first" in batch else range(len(chosen) + 1)
    for place, one in enumerate(chosen):
        alone, own = split.collate([one]), slice(first[place], first[place + 1])
        assert torch.equal(batch["key"][own], alone["key"])
        width = alone["student"]["input_ids"].shape[1]
        assert torch.equal(batch["student"]["input_ids"][own, :width], alone["student"]["input_ids"])
        assert not batch["student"]["attention_mask"][own, width:].any()


@each_text_row
def test_sequences_are_the_texts_that_were_encoded(row: Row, case: Case) -> None:
    """Teachers that find answers by text (teachers/lookup.py) would else give each the answer of another."""
    split, given = case.split, [*SequenceTexts(case.prepared.train, case.task.sequences)]
    owners = np.arange(N) if split.first is None else np.repeat(np.arange(N), np.diff(split.first))
    assert [i for i, _ in given] == owners.tolist()
    read = case.tokenise
    columns = [*zip(*(texts for _, texts in given), strict=True)]
    sides = read(columns[0]) if len(columns) == 1 else read.pairs(*columns)
    np.testing.assert_array_equal(sides.teacher.keys, split.teacher.keys)


@each_labelled_row
def test_rows_without_labels_teach_the_own_loss_nothing(row: Row, case: Case) -> None:
    unlabelled, taught = case.encode(case.prepared.unlabelled), student(case)
    assert unlabelled.columns.keys() == case.split.columns.keys()
    both = joined([case.split, unlabelled])
    loss = case.own_loss(taught)
    term = loss.callbacks["own"]
    assert not unlabelled.units[term.unit].any() and case.split.units[term.unit].any()
    batches = both.collate(range(2 * N)), case.split.collate(range(N))
    outputs = [loss(taught(batch["student"]), None, batch, 0.0).total for batch in batches]
    torch.testing.assert_close(*outputs, rtol=1e-5, atol=1e-6)
    batch = unlabelled.collate(range(N))
    loss(taught(batch["student"]), None, batch, 0.0).total.backward()
    assert not any(p.grad is not None and p.grad.any() for p in taught.parameters())


@each_row
def test_a_perfect_model_gets_the_best_scores(row: Row, case: Case) -> None:
    batch = case.split.collate(range(N))
    truth = {**case.split.columns, **({"next": batch["next"].numpy()} if row.tokens else {})}
    logits = torch.from_numpy(np.asarray(row.perfect(case.head, truth), dtype=np.float32))
    model = fixed(case, logits, range(N), batch)
    answers = case.task.ask(model, batch, model)
    values, judge = case.values(answers, answers), case.task.judge
    assert {judge.main, *judge.monitors} - {*judge.generated} <= values.keys()
    best = {name: float(judge.scores[name].higher) for name in values} | row.best
    assert values == pytest.approx(best, abs=1e-6)
    chance = judge.chance(case.head, case.split.columns)
    assert all(judge.scores[name].gain(values[name], least) > 0 for name, least in chance.items())


@each_row
def test_the_meters_say_what_the_judge_says(row: Row, case: Case) -> None:
    generator = torch.Generator().manual_seed(0)
    outputs = len(row.reader()) if row.tokens else case.head.outputs or 8
    sides = [torch.randn(offsets(case)[-1], outputs, generator=generator) for _ in range(2)]
    meters = case.task.meters(case.head, teacher=True, together=False)
    own, teacher = both(case, sides, range(N))
    for chosen in ([0, 1, 2, 3, 4], [5, 6, 7, 8, 9, 10, 11]):
        batch = case.split.collate(chosen)
        asked = both(case, sides, chosen)
        meters.update(asked[0], {name: batch[name] for name in case.split.columns}, asked[1])
    values = case.values(own, teacher)
    assert meters.values() == pytest.approx(values, abs=1e-9)
    alone = case.task.meters(case.head, teacher=False, together=False)
    alone.update(teacher, {name: torch.from_numpy(each) for name, each in case.split.columns.items()})
    assert alone.values() == pytest.approx(case.values(teacher), abs=1e-9)


def both(case: Case, sides: Sequence[Tensor], chosen: Sequence[int]) -> list[dict[str, Tensor]]:
    """What a student with the first of these answers says of some rows, beside a teacher with the second, and the teacher."""
    batch = case.split.collate(chosen)
    own, teacher = (fixed(case, side, chosen, batch) for side in sides)
    return [case.task.ask(own, batch, teacher), case.task.ask(teacher, batch)]


def offsets(case: Case) -> list[int]:
    """Where the answers to each row begin: of its sequences, or of its target tokens."""
    if case.row.tokens:
        return [0, *np.cumsum(case.split.units["targets"]).tolist()]
    return [*range(N + 1)] if case.split.first is None else case.split.first.tolist()


def fixed(case: Case, answers: Tensor, chosen: Sequence[int], batch: Batch):  # type: ignore[no-untyped-def]
    """A model with these answers (S, outputs), or (P, V), asked about some rows."""
    first = offsets(case)
    own = torch.cat([answers[first[i] : first[i + 1]] for i in chosen])
    mask = batch["student"]["attention_mask"]
    if case.row.tokens:
        return lambda _: Outputs(None, mask, tokens=FromStates(own, LmHead(torch.eye(own.shape[1]))))
    return lambda _: Outputs.of(case.head.kind, own, mask)


@each_row
def test_references_answer_as_models_do(row: Row, case: Case) -> None:
    """As a model's forward does, or as the scores of its texts, which are numbers of rows."""
    model = asked(case, student(case), case.split.collate(range(N)))
    shapes = {key: each.shape for key, each in model.items()}
    generated = case.task.judge.generated
    for name, answers in case.task.references(case.prepared.train, case.split).items():
        own = {key: each.shape for key, each in answers.items()}
        assert own == shapes if not generated else own == dict.fromkeys(generated, (N,)), name
        assert case.task.judge.main in case.values(answers) or {*generated} <= case.values(answers).keys()


@each_row
def test_the_own_loss_learns(row: Row, case: Case) -> None:
    batch, taught = case.split.collate(range(N)), student(case).train()
    loss = case.own_loss(taught)
    assert not loss.needs_teacher
    # A T5 whose states are 16 wide learns slowly at a usual rate.
    optimizer = torch.optim.AdamW(taught.parameters(), lr=3e-2 if case.head.source else 5e-3)
    totals = []
    for _ in range(40):
        total = loss(taught(batch["student"]), None, batch, 0.0).total
        optimizer.zero_grad()
        total.backward()
        optimizer.step()
        totals.append(total.item())
    assert totals[-1] < 0.5 * totals[0]
    scores = case.values(asked(case, taught.eval(), batch))
    judge = case.task.judge
    for name, least in judge.chance(case.head, case.split.columns).items():
        assert judge.scores[name].gain(scores[name], least) > 0


def asked(case: Case, model: Encoder, batch: Batch) -> dict[str, Tensor]:
    with torch.no_grad():
        return case.task.ask(lambda batch: model(batch["student"]), batch)


@each_row
def test_padding_and_micro_batches_change_nothing(row: Row, case: Case) -> None:
    model = student(case)
    whole, loss = case.split.collate(range(N)), case.own_loss(model).callbacks["own"]
    answers, output = asked(case, model, whole), loss(model(whole["student"]), None, whole)
    total, count = torch.zeros(()), 0
    for chosen in ([0, 1, 2], list(range(3, N))):
        part = case.split.collate(chosen)
        for name, values in asked(case, model, part).items():
            torch.testing.assert_close(values, answers[name][chosen], rtol=1e-4, atol=1e-5)
        piece = loss(model(part["student"]), None, part)
        total, count = total + piece.sum.detach(), count + piece.count
    if loss.additive:
        assert count == output.count
        torch.testing.assert_close(total, output.sum.detach(), rtol=1e-5, atol=1e-5)


@each_text_row
def test_a_stored_teacher_says_what_the_live_one_says(row: Row, case: Case) -> None:
    splits = {"train": case.split, "validation": case.split}
    context = TeacherContext(case.head, Teachers(case.head, case.row.late), splits, case.cache, CPU, 5, silent)
    batch, sides = case.split.collate(range(N)), (Local(path="bert", seed=1), Cached(path="bert", seeds=(1,)))
    one, other = (case.task.ask(side.provider(context).prepare(CPU, Need(answer=True)), batch) for side in sides)
    assert one.keys() == other.keys()
    for name, values in one.items():
        torch.testing.assert_close(other[name], values, rtol=1e-5, atol=1e-6)
