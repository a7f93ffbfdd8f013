"""Recipes of several stages: carried-over weights, frozen parts, other teachers and students, and resuming in between."""

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from conftest import checked
from omegaconf import DictConfig

from mangakd.core.errors import UserError

Compose = Callable[..., DictConfig]
RunHere = Callable[[DictConfig, Path], None]
Weights = dict[str, torch.Tensor]


@pytest.fixture
def typed(small_run: list[str]) -> list[str]:
    return [*small_run, "trainer.max_epochs=1"]


def weights(folder: Path, stage: str, file: str = "last.ckpt") -> Weights:
    saved = torch.load(folder / "stages" / stage / "checkpoints" / file, weights_only=False)["state_dict"]
    return {name: value for name, value in saved.items() if name.startswith("student.")}


def stages(**recipe: str) -> list[str]:
    return ["~stages.distil", *(f"+stages.{name}={options}" for name, options in recipe.items())]


def test_two_stages_resume_in_the_second(
    typed: list[str], run_here: RunHere, compose: Compose, tmp_path: Path, stopped_at: Callable[..., None]
) -> None:
    recipe = [
        *typed,
        "stages=two_stage",
        "stages.features.epochs=1",
        "stages.soft_targets.epochs=2",
        "checkpoint.every_steps=2",
    ]
    run_here(compose(*recipe), tmp_path / "whole")
    stopped_at(5, lambda: run_here(compose(*recipe), tmp_path / "killed"), within="soft_targets")
    run_here(compose(*recipe, "resume=auto"), tmp_path / "killed")
    for stage in ("1_features", "2_soft_targets"):
        one, other = weights(tmp_path / "whole", stage), weights(tmp_path / "killed", stage)
        assert all(torch.equal(other[name], value) for name, value in one.items())
    steps = [torch.load(tmp_path / "whole" / "stages" / s / "checkpoints" / "last.ckpt", weights_only=False)["global_step"]
             for s in ("1_features", "2_soft_targets")]  # fmt: skip
    assert steps[0] > 6 and steps[1] == 2 * steps[0], "48 labelled and about as many new texts, 8 a step"


def test_progressive_thaws_from_the_top(typed: list[str], run_here: RunHere, compose: Compose, tmp_path: Path) -> None:
    recipe = stages(top="{frozen: [embeddings, 1]}", all="{teacher: previous}")
    run_here(compose(*typed, *recipe), tmp_path / "run")
    first, second = weights(tmp_path / "run", "1_top"), weights(tmp_path / "run", "2_all")
    moved = {name for name, value in second.items() if not torch.equal(first[name], value)}
    assert any("embeddings" in name for name in moved) and any("layer.0." in name for name in moved)
    student = checked(compose(*typed), tmp_path / "student").material.students.build()
    frozen = {f"student.{n}": v for n, v in student.state_dict().items() if "embeddings" in n or "layer.0." in n}
    assert all(torch.equal(first[name], value) for name, value in frozen.items())
    assert not torch.equal(first["student.model.classifier.weight"], student.state_dict()["model.classifier.weight"])


def test_an_assistant_stands_between(typed: list[str], run_here: RunHere, compose: Compose, tmp_path: Path) -> None:
    recipe = stages(assistant="{student: {layers: [1,2,3]}}", student="{teacher: previous}")
    run_here(compose(*typed, *recipe), tmp_path / "run")
    layers = [sum("output.LayerNorm.weight" in n and "attention" not in n for n in weights(tmp_path / "run", stage))
              for stage in ("1_assistant", "2_student")]  # fmt: skip
    assert layers == [3, 2]


def test_stored_and_live_stages_train_alike(
    typed: list[str], run_here: RunHere, compose: Compose, tmp_path: Path
) -> None:
    for name in ("run", "stored"):
        run_here(compose(*typed, *stages(one=f"{{teacher: {name}}}", two="{}")), tmp_path / name)
    live, kept = weights(tmp_path / "run", "1_one"), weights(tmp_path / "stored", "1_one")
    assert all(torch.allclose(live[name], value, atol=1e-4) for name, value in kept.items())


@pytest.mark.parametrize(
    ("overrides", "words"),
    [
        (["+stages.distil.losses=[hiden]"], "stages.distil.losses names hiden, which is no loss of this run"),
        (["+stages.distil.teacher=previous"], "there is no stage before the first one"),
        (["+stages.distil.frozen=[7]"], "stages.distil.frozen names 7; this student has embeddings and layers 1…2"),
        (["+stages.distil.texts=[unlabelled]"], "reads unlabelled texts and there are none: set data.unlabelled_path"),
        (["+stages.distil.texts=[augmented]", "augment.copies=0"], "augmented texts and there are none: set augment.copies"),
        (["+stages.distil.lerning_rate=1"], "unexpected keyword argument 'lerning_rate'. Known entries: losses, texts, limit"),
        (["~stages.distil"], "there are no stages to train"),
        (["+stages.distil.student={layers: [9]}"], r"stages\.distil\.student: student\.layers=\[9\] must name teacher layers"),
        (["+stages.distil.student={layer: [1]}"], "stages.distil.student: .*unexpected keyword argument 'layer'"),
        (["task.kind=score"], "task.kind=score, but the head of task=intent is 3 labels .*: set task.kind=labels"),
        (["task.monitor=null"], "task.monitor=None is no metric"),
        (["data.columns=null"], "data.columns=None must map columns of the task"),
        (["data.labelled_share=0"], r"data.labelled_share=0 must be in \(0, 1\]"),
    ],
)  # fmt: skip
def test_what_a_recipe_refuses(
    overrides: list[str], words: str, typed: list[str], compose: Compose, tmp_path: Path
) -> None:
    with pytest.raises(UserError, match=words):
        checked(compose(*typed, *overrides), tmp_path / "run")
