"""Adapters in the other tasks: a ranker in bf16 beside its real base, late interaction, sentence vectors, a language model."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from integration.test_response import save_model
from omegaconf import DictConfig
from ranking_rows import rows, written
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM

from mangakd.evaluation import predictions
from mangakd.models import load
from mangakd.shop.manga_answers import make_split

pytest.importorskip("peft", reason="adapters need peft: pip install 'mangakd[lora]'")
Compose = Callable[..., DictConfig]
RunHere = Callable[[DictConfig, Path], None]
LORA = [
    "student.lora.rank=2",
    "optim.lr=1e-2",
    "trainer.max_epochs=1",
    "hardware=cpu",
    "hardware.precision=32-true",
    "logger=[]",
]


def learned(run: Path) -> set[str]:
    """Names of what the checkpoint holds of the student."""
    state = torch.load(run / "checkpoints" / "last.ckpt", weights_only=False)["state_dict"]
    return {name.removeprefix("student.") for name in state if name.startswith("student.")}


@pytest.fixture
def ranking(tiny_fresh: Path, tmp_path: Path) -> list[str]:
    files = [f"data.{key}={written(tmp_path / f'{key}.jsonl', rows(12, seed))}" for seed, key in enumerate(
        ("path", "val_path", "test_path"))]  # fmt: skip
    sizes = [
        "hardware.tasks.score.batch_size=6",
        "data.max_length=24",
        "teacher.fit.epochs=1",
        "losses=[listwise_kl,list_net]",
    ]
    return ["task=rerank", *files, f"teacher.path={tiny_fresh}", "student.layers=[1,3]", *sizes, *LORA]


def test_a_ranker_in_bf16_is_scored_beside_its_base(
    ranking: list[str], run_here: RunHere, compose: Compose, tmp_path: Path
) -> None:
    run_here(compose(*ranking, "hardware.precision=bf16-mixed"), tmp_path / "run")
    test = predictions.load(tmp_path / "run", "test")
    assert {"student", "untrained student"} <= set(test.models)
    student = load_file(tmp_path / "run" / "student" / "model.safetensors")
    assert all(weight.dtype == torch.float32 for weight in student.values())
    teacher = load_file(next((tmp_path / "cache" / "teachers").glob("*/model.safetensors")))
    name = "bert.encoder.layer.{}.output.dense.bias"
    assert torch.equal(student[name.format(1)], teacher[name.format(2)]), (
        "the frozen weights are those of the source, not bf16"
    )
    assert not (tmp_path / "run" / "adapter").exists(), "layers of a teacher are no base that an adapter can name"


def test_late_interaction_learns_its_projection_whole(
    ranking: list[str], run_here: RunHere, compose: Compose, tmp_path: Path
) -> None:
    run_here(compose(*ranking, "student.interaction={dims: 8}"), tmp_path / "run")
    others = {name for name in learned(tmp_path / "run") if "lora_" not in name}
    assert others and all(name.startswith("pooling.") for name in others)


def test_sentence_vectors(tiny_fresh: Path, run_here: RunHere, compose: Compose, tmp_path: Path) -> None:
    file = tmp_path / "pairs.jsonl"
    lines = [{"anchor": f"order {i}", "positive": f"refund {i % 3} order", "score": i % 5} for i in range(20)]
    file.write_text("\n".join(map(json.dumps, lines)) + "\n")
    files = [f"data.{key}={file}" for key in ("path", "val_path", "test_path")]
    paths = [f"teacher.path={tiny_fresh}", f"student.path={tiny_fresh}", "task.most=5"]
    run_here(compose("task=embedding", "data=files", *files, *paths, *LORA), tmp_path / "run")
    assert all("lora_" in name for name in learned(tmp_path / "run"))
    both = (
        load.outline_trained(str(tmp_path / "run" / name), "student.path", "vector") for name in ("student", "adapter")
    )
    student, adapter = (outline.read(torch.float32).state_dict() for outline in both if outline is not None)
    for name, weight in student.items():
        torch.testing.assert_close(adapter[name], weight, rtol=1e-5, atol=1e-6, msg=name)


def test_a_language_model(run_here: RunHere, compose: Compose, tmp_path: Path) -> None:
    base, file = Path(save_model(tmp_path / "base")), tmp_path / "answers.jsonl"
    answers = make_split("train", 24)
    file.write_text("\n".join(json.dumps({"prompt": each.prompt, "answer": each.answer}) for each in answers) + "\n")
    files = [f"data.{key}={file}" for key in ("path", "val_path", "test_path")]
    paths = [f"teacher.path={base}", f"student.path={base}", "teacher.fit.mode=never", "data.max_length=256"]
    run_here(compose("task=response", "data=files", *files, *paths, *LORA, "hardware.batch_size=8"), tmp_path / "run")
    assert all("lora_" in name for name in learned(tmp_path / "run"))
    student = AutoModelForCausalLM.from_pretrained(tmp_path / "run" / "student")
    before = AutoModelForCausalLM.from_pretrained(base)
    assert torch.equal(student.lm_head.weight, before.lm_head.weight)
    assert student.lm_head.weight is student.model.embed_tokens.weight
    moved = [name for name, weight in student.named_parameters() if not torch.equal(weight, before.get_parameter(name))]
    assert moved and all(name.endswith("proj.weight") for name in moved)
