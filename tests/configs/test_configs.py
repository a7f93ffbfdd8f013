"""Every yaml composes, every `_target_` exists, the keys users type are there, and asking for help loads no torch."""

import importlib
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from conftest import REPO
from omegaconf import DictConfig, OmegaConf

from mangakd.cli.searchpath import SERVED

Compose = Callable[..., DictConfig]
CONF = REPO / "conf"
GROUPS = (
    "task",
    "data",
    "models",
    "student",
    "teacher",
    "losses",
    "stages",
    "optim",
    "hardware",
    "logger",
    "export",
    "experiment",
    "debug",
)
LISTS = ("losses", "logger", "export")
OPTIONS = sorted(
    (file.parent.name, file.stem)
    for file in CONF.glob("*/*.yaml")
    if not file.stem.startswith("_") and file.parent.name not in SERVED
)  # fmt: skip
KEYS = (
    "distill.temperature", "distill.alpha", "distill.beta", "distill.gamma", "data.path", "data.val_path", "data.test_path",
    "data.text_column", "data.label_column", "data.train_limit", "data.val_limit", "data.test_limit", "data.max_length",
    "teacher.path", "teacher.fit.mode", "student.path", "student.layers", "student.sizes", "optim.lr", "trainer.max_epochs",
    "hardware.batch_size", "hardware.accumulate", "hardware.devices", "checkpoint.every_steps", "plan", "paths.cache", "seed",
    "validate", "baseline", "resume", "export.max_drop", "hydra.run.dir", "hydra.sweep.dir",
)  # fmt: skip


def targets(node: Any) -> Iterator[str]:
    if isinstance(node, dict):
        if "_target_" in node:
            yield node["_target_"]
        for value in node.values():
            yield from targets(value)


def plain(config: DictConfig) -> dict[str, Any]:
    """The config without hydra's own part, everything resolved."""
    own = OmegaConf.masked_copy(config, [str(key) for key in config if key != "hydra"])
    with_hydra = OmegaConf.to_container(OmegaConf.create({**own}), resolve=False)
    assert isinstance(with_hydra, dict)
    return {str(key): value for key, value in with_hydra.items()}


CHOOSING = [(group, option) for group, option in OPTIONS if group in ("models", "stages", "experiment")]


@pytest.mark.parametrize(("group", "option"), CHOOSING, ids=lambda part: str(part))
def test_what_a_yaml_chooses_is_chosen(group: str, option: str, compose: Compose) -> None:
    """Hydra takes another's word without one of its own, where a group that comes later chooses, too."""
    config = compose(f"{group}={option}")
    for entry in OmegaConf.load(CONF / group / f"{option}.yaml").get("defaults", []):  # type: ignore[union-attr]
        name, value = next(iter(entry.items())) if isinstance(entry, DictConfig) else ("", None)
        if name.startswith("override /"):
            name = name.removeprefix("override /")
            found = list(config[name]) if name in LISTS else config.hydra.runtime.choices[name]
            assert found == value, name


@pytest.mark.parametrize(("group", "option"), OPTIONS, ids=lambda part: str(part))
def test_every_option_composes_and_its_targets_exist(group: str, option: str, compose: Compose) -> None:
    name = {"workload": "plan", "provider": "label", "prices": "label"}.get(group, "train")
    needs = ["task=response"] if option.startswith("response_") else []
    config = compose(*needs, f"{group}=[{option}]" if group in LISTS else f"{group}={option}", name=name)
    for target in targets(plain(config)):
        module, _, own = target.rpartition(".")
        assert callable(getattr(importlib.import_module(module), own)), target
    if name != "label":
        OmegaConf.resolve(config.distill)
        OmegaConf.resolve(config.optim)


@pytest.mark.parametrize(
    "name", sorted(f.stem for f in CONF.glob("*.yaml") if f.stem == "train" or "- train" in f.read_text())
)
def test_every_command_composes(name: str, compose: Compose) -> None:
    config = compose(name=name)
    assert all(key in config for key in ("task", "data", "teacher", "student", "losses"))


def test_groups_and_keys_that_users_type_exist(compose: Compose) -> None:
    for group in GROUPS:
        assert any((CONF / group).glob("[!_]*.yaml")), group
    config = compose()
    for key in KEYS:
        parent, _, name = key.rpartition(".")
        assert name in (OmegaConf.select(config, parent) if parent else config), key


def test_options_are_commented(compose: Compose) -> None:
    """--cfg job and the files are the manual: an option without a word on it is a riddle."""
    bare = [f"{group}/{name}" for group, name in OPTIONS if "#" not in (CONF / group / f"{name}.yaml").read_text()]
    assert not [name for name in bare if name not in ("logger/csv", "optim/adamw")]


EXPORT_OPTIONS = ("max_drop", "batch_size", "threads", "max_length", "max_new_tokens")


@pytest.mark.parametrize(
    ("overrides", "key", "expected"),
    [
        (["logger=wandb"], "logger", {"wandb"}),
        (["logger=[csv,wandb]"], "logger", {"csv", "wandb"}),
        (["losses=output"], "losses", {"output"}),
        (["losses=[hard_label,output,hidden,attention]"], "losses", {"hard_label", "output", "hidden", "attention"}),
        (["losses=[relation]"], "losses", {"relation"}),
        (
            ["export=[openvino,onnx]"],
            "export",
            {
                "openvino",
                "onnx",
                "max_drop",
                "batch_size",
                "threads",
                "max_length",
                "max_new_tokens",
                "max_perplexity_ratio",
                "tokens",
            },
        ),
    ],
)
def test_one_or_several_of_a_group(overrides: list[str], key: str, expected: set[str], compose: Compose) -> None:
    assert set(compose(*overrides)[key]) == expected


def test_none_of_a_group(compose: Compose) -> None:
    config = compose("losses=[]", "logger=[]")
    assert not config.get("losses") and not config.get("logger")


def test_a_chosen_student_wins_over_the_pair(compose: Compose) -> None:
    config = compose("models=embedded", "student=tinybert_4l_312d")
    assert config.student.sizes.hidden_size == 312
    assert config.student.layers is None and config.student.path is None
    assert config.teacher.path == "embedded"
    assert config.optim.lr == config.student.lr == 1e-3


def test_the_pair_of_the_hub_starts_from_its_teacher(compose: Compose) -> None:
    config = compose("models=mangaassist")
    assert (config.student.start, config.student.path) == ("teacher", None)
    assert config.optim.lr == 3e-4 and config.stages.distil.texts == ["labelled", "augmented"]
    pretrained = compose("models=mangaassist", "student=mangaassist", "stages=two_stage")
    assert (pretrained.student.start, pretrained.student.path) == ("random", "huawei-noah/TinyBERT_General_4L_312D")
    assert list(pretrained.stages) == ["features", "soft_targets"] and "hidden" in pretrained.losses


def test_the_command_line_wins_over_experiment_and_debug(compose: Compose) -> None:
    config = compose("experiment=quickstart", "debug=fast", "trainer.max_epochs=7")
    assert config.trainer.max_epochs == 7
    assert config.data.train_limit == 640  # debug is laid over the experiment
    assert config.baseline is True


def test_a_task_of_scores_takes_its_batches_from_labels(compose: Compose) -> None:
    """Its model is the same; every profile that changes one changes both."""
    for profile in ("cpu", "mps", "a100_x4_fsdp"):
        labels, score = (compose(f"hardware={profile}", f"task.kind={kind}").hardware for kind in ("labels", "score"))
        for key in ("batch_size", "accumulate", "max_length", "eval_batch_size"):
            assert labels[key] == score[key], profile


def test_a_profile_s_batch_of_scores_wins_over_the_task_s(compose: Compose, tmp_path: Path) -> None:
    (tmp_path / "hardware").mkdir()
    large = "defaults: [a100]\ntasks: {score: {batch_size: 32, eval_batch_size: 64}}\n"
    (tmp_path / "hardware" / "large.yaml").write_text(large)
    keys = ("batch_size", "max_length", "eval_batch_size")

    def numbers(*words: str) -> list[int]:
        return [compose(f"hydra.searchpath=[file://{tmp_path}]", *words).hardware[key] for key in keys]

    assert numbers("task=rerank", "hardware=a100") == [8, 256, 16], (
        "the task's own, whatever the profile says of labels"
    )
    assert numbers("task=rerank", "hardware=large") == [32, 256, 64]
    assert numbers("task=rerank", "hardware=large", "hardware.tasks.score.batch_size=4") == [4, 256, 64]
    assert numbers("task=intent", "hardware=large") == [128, 128, 512]


def test_alpha_weighs_both_terms(compose: Compose) -> None:
    config = compose("distill.alpha=0.25")
    assert config.losses.output.weight == 0.25
    assert config.losses.hard_label.weight == 0.75


LIGHT = """
import runpy, sys
sys.argv = ["train.py", *sys.argv[1:]]
try:
    runpy.run_path("train.py", run_name="__main__")
except SystemExit as end:
    assert not end.code, end.code
heavy = {"torch", "transformers", "lightning", "numpy", "pyarrow"} & set(sys.modules)
print("HEAVY", sorted(heavy))
"""


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (
            ["--help"],
            ["python train.py experiment=quickstart", "a100, a100_x4_fsdp, a10g_x2_ddp, auto, cpu", "temperature"],
        ),
        (["--cfg", "job"], ["temperature: 2.0", "_target_: mangakd.losses.output.OutputLoss"]),
        (["--cfg", "job", "losses=output", "--package", "losses"], ["divergence: forward_kl"]),
    ],
)
def test_help_and_cfg_load_nothing_heavy(arguments: list[str], expected: list[str], tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-c", LIGHT, *arguments], cwd=REPO, capture_output=True, text=True, timeout=600, check=False
    )
    assert done.returncode == 0, done.stderr
    assert "HEAVY []" in done.stdout
    assert all(words in done.stdout for words in expected), done.stdout
