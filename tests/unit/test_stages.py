"""Stages: which losses, texts and parts; what a recipe refuses."""

import pytest
import tiny
import tiny_language

from mangakd.core.errors import UserError
from mangakd.training.stages import Stage


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"texts": ["labeled"]}, r"stages.a.texts=\['labeled'\] must name some of labelled, augmented, unlabelled; did you mean"),
        ({"texts": []}, "must name some of"),
        ({"teacher": "before"}, "stages.a.teacher=before must be one of run, stored, previous"),
        ({"keep": "first"}, "stages.a.keep=first must be one of"),
        ({"quantise": "int4"}, "stages.a.quantise=int4 must be one of None, int8"),
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
