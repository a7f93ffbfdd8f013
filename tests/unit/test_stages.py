"""Stages: which losses, texts and parts; what a recipe refuses."""

import logging

import pytest
import tiny
import tiny_language

from mangakd.core.errors import UserError
from mangakd.losses.hard_label import HardLabelLoss
from mangakd.losses.hidden import HiddenLoss
from mangakd.losses.output import OutputLoss
from mangakd.runs.checks.recipe import provided, stages
from mangakd.teachers.ensemble import Ensemble
from mangakd.teachers.local import Local
from mangakd.teachers.options import TeacherOptions
from mangakd.training.stages import Stage


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"texts": ["labeled"]}, r"stages.a.texts=\['labeled'\] must name some of labelled, augmented, unlabelled; did you mean"),
        ({"texts": []}, "must name some of"),
        ({"teacher": "before"}, "stages.a.teacher=before must be one of run, stored, previous"),
        ({"keep": "first"}, "stages.a.keep=first must be one of"),
        ({"quantise": "int4"}, "stages.a.quantise=int4 must be one of null, int8"),
        ({"epochs": 0}, "stages.a.epochs=0 must be a whole number from 1 on"),
        ({"patience": 1.5}, "stages.a.patience=1.5 must be"),
    ],
)  # fmt: skip
def test_wrong_options(options: dict[str, object], words: str) -> None:
    with pytest.raises(UserError, match=words):
        Stage("a", **options)  # type: ignore[arg-type]


def test_losses_are_chosen_by_name() -> None:
    losses = {"hard_label": 1, "output": 2}
    assert Stage("a").select(losses) == losses
    assert Stage("a", losses=["output"]).select(losses) == {"output": 2}
    with pytest.raises(UserError, match=r"stages.a.losses names hiden.*losses=\[hard_label,output\]"):
        Stage("a", losses=["hiden"]).select(losses)


def test_frozen_parts_do_not_learn_and_thaw_again() -> None:
    student = tiny.encoder(2)

    def learning() -> set[str]:
        return {name for name, parameter in student.model.named_parameters() if parameter.requires_grad}

    every = learning()
    with Stage("a", frozen=["embeddings", 1]).freezing(student):
        frozen = every - learning()
        assert {name.split(".")[1] for name in frozen} == {"embeddings", "encoder"}
        assert all("layer.1." not in name for name in frozen) and any("layer.0." in name for name in frozen)
    assert learning() == every
    with (
        pytest.raises(UserError, match="names 3; this student has embeddings and layers 1…2"),
        Stage("a", frozen=[3]).freezing(student),
    ):
        pass


def test_the_embeddings_of_a_language_model_are_its_table() -> None:
    student = tiny_language.encoder("untied")
    with Stage("a", frozen=["embeddings"]).freezing(student):
        frozen = [name for name, parameter in student.named_parameters() if not parameter.requires_grad]
    assert frozen == ["model.model.embed_tokens.weight"]


def test_what_teaches_nothing_and_what_is_thrown_away_is_told(caplog: pytest.LogCaptureFixture) -> None:
    student = tiny.encoder(1)
    losses = tiny.bound(student, student, hard_label=HardLabelLoss(), output=OutputLoss()).callbacks
    with caplog.at_level(logging.WARNING):
        new = Stage("a", texts=["labelled", "augmented"], keep="last")
        stages([new, Stage("a", patience=2, keep="best")], losses, student.spec, {})
        assert not caplog.text
        stages([new], {"hard_label": losses["hard_label"]}, student.spec, {})
        assert "stages.a.texts reads augmented texts, which have no labels" in caplog.text
        stages([Stage("a", patience=2, keep="last")], losses, student.spec, {})
        assert "set stages.a.keep=best" in caplog.text


@pytest.mark.parametrize(
    ("options", "cure"),
    [
        (Local(path="m"), r"Set stages\.a\.teacher=run, or leave hidden out"),
        (Ensemble(path="m", seeds=[0, 1]), r"Use teacher=local and stages\.a\.teacher=run, or leave hidden out"),
    ],
)
def test_a_stored_teacher_without_hidden_states_names_a_cure_that_works(options: TeacherOptions, cure: str) -> None:
    student, teacher = tiny.encoder(1), tiny.encoder(2)
    losses = tiny.bound(student, teacher, hidden=HiddenLoss()).callbacks
    with pytest.raises(UserError, match=cure):
        provided(options, [Stage("a", teacher="stored")], losses, teacher.spec, student.spec)
    provided(Local(path="m"), [Stage("a", teacher="run")], losses, teacher.spec, student.spec)
