"""A run of `task=response` that takes seconds: answers of the shop, and a tiny Llama that is fine-tuned once a session."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from conftest import checked
from omegaconf import DictConfig

from mangakd.cli.once import config_of, hydra_ready

COUNTS = {"path": 48, "val_path": 16, "test_path": 20}


def save_model(folder: Path, **entries: object) -> str:
    """A Llama of 3 layers of 16, with the template and a tokenizer of the shop."""
    from tiny_language import CONFIGS
    from transformers import AutoModelForCausalLM

    from mangakd.models.embedded_tiny import train_tokenizer
    from mangakd.shop.manga_answers import make_split

    reader = train_tokenizer(each.answer for each in make_split("train", 60))
    settings = CONFIGS["llama"]()
    ids = {name: getattr(reader, name) for name in ("bos_token_id", "eos_token_id", "pad_token_id")}
    settings.update({"vocab_size": len(reader), "max_position_embeddings": 256, **ids, **entries})
    torch.manual_seed(0)
    AutoModelForCausalLM.from_config(settings).save_pretrained(folder)
    reader.save_pretrained(folder)
    return str(folder)


@pytest.fixture(scope="session")
def response_model(tmp_path_factory: pytest.TempPathFactory) -> str:
    return save_model(tmp_path_factory.mktemp("models") / "llama")


@pytest.fixture(scope="session")
def response_files(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of `<key>.jsonl` for each of COUNTS."""
    from mangakd.shop.manga_answers import make_split

    folder = tmp_path_factory.mktemp("answers")
    for i, (key, count) in enumerate(COUNTS.items()):
        rows = [{"prompt": a.prompt, "answer": a.answer} for a in make_split("train", 300)[100 * i :][:count]]
        (folder / f"{key}.jsonl").write_text("\n".join(map(json.dumps, rows)) + "\n")
    return folder


@pytest.fixture(scope="session")
def response_words(response_model: str, response_files: Path) -> list[str]:
    files = [f"data.{key}={response_files / f'{key}.jsonl'}" for key in COUNTS]
    return [
        "task=response", "data=files", *files, f"teacher.path={response_model}",
        "teacher.fit={mode: always, epochs: 8, lr: 0.02}", "student.layers=[1,3]", "hardware=cpu",
        "hardware.precision=32-true", "trainer.max_epochs=2", "hardware.batch_size=8", "hardware.accumulate=2",
        "data.max_length=256", "task.system=be kind",
    ]  # fmt: skip


@pytest.fixture(scope="session")
def response_teachers(response_words: list[str], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of the cache with the fine-tuned teacher."""
    base = tmp_path_factory.mktemp("teachers")
    with hydra_ready():
        run = checked(config_of("train", f"paths.cache={base}", *response_words, folder=base / "run"), base / "run")
        run.material.context.load(run.parts.teacher.models[0])
    return base / "teachers"


@pytest.fixture
def response_run(response_words: list[str], response_teachers: Path, tmp_path: Path) -> list[str]:
    """A run whose cache, `tmp_path / cache`, holds the fine-tuned teacher."""
    shutil.copytree(response_teachers, tmp_path / "cache" / "teachers")
    return response_words


@pytest.fixture
def ends_alike(
    compose: Callable[..., DictConfig], run_here: Callable[..., None], stopped_at: Callable[..., None], tmp_path: Path
) -> Callable[..., None]:
    """ends_alike(*typed): a run that is stopped at step 4 and resumed ends with the bits of one that is not."""

    def weights(name: str) -> dict[str, torch.Tensor]:
        return torch.load(tmp_path / name / "checkpoints" / "last.ckpt", weights_only=False)["state_dict"]

    def compare(*own: str) -> None:
        words = [*own, "logger=[]", "checkpoint.every_steps=1", "baseline=false"]
        run_here(compose(*words), tmp_path / "whole")
        stopped_at(4, lambda: run_here(compose(*words), tmp_path / "cut"), within="cut")
        run_here(compose(*words, "resume=auto"), tmp_path / "cut")
        whole, resumed = weights("whole"), weights("cut")
        assert all(torch.equal(resumed[name], value) for name, value in whole.items())

    return compare
