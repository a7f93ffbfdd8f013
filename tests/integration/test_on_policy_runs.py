"""`distill.lmbda` of a whole run, and what preflight says where nobody could score what a student writes."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from conftest import checked
from language_folder import save_language_model
from omegaconf import DictConfig

from mangakd.core.errors import UserError
from mangakd.evaluation.generations import read

Compose = Callable[..., DictConfig]


@pytest.fixture(scope="module")
def typed(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    folder = tmp_path_factory.mktemp("on_policy")
    save_language_model(folder / "teacher")
    rows = [{"prompt": f"where is book {i}?", "answer": f"it is on shelf {i * 7 % 10}"} for i in range(40)]
    (folder / "rows.jsonl").write_text("\n".join(map(json.dumps, rows)))
    return [
        "task=response", "data=files", f"data.path={folder / 'rows.jsonl'}", f"teacher.path={folder / 'teacher'}",
        "teacher.fit.mode=never", "student.layers=[1,3]", "hardware=cpu", "hardware.precision=32-true", "hardware.batch_size=8",
        "data.max_length=64", "logger=[]", "baseline=false", "trainer.max_epochs=2", "distill.lmbda=0.5",
        "on_policy.max_new_tokens=8",
    ]  # fmt: skip


def test_a_run_in_which_the_student_writes(
    typed: list[str], compose: Compose, run_here: Callable[[DictConfig, Path], None], tmp_path: Path
) -> None:
    """With accumulation, whose micro-batches agree on which steps are the student's."""
    words = [
        "hardware.accumulate=2",
        "baseline=true",
        "task.generate=3",
        "task.sampling.max_new_tokens=6",
        "logger=[csv]",
        "+trainer.log_every_n_steps=1",
    ]
    run_here(compose(*typed, *words), tmp_path / "run")
    metrics = json.loads((tmp_path / "run" / "metrics.json").read_text())
    assert metrics["train/steps"] == 4
    report = (tmp_path / "run" / "report.md").read_text()
    assert "What the models write" in report and "ROUGE-L" in report
    texts = read(tmp_path / "run")
    assert len(texts) == 3 and [*texts[0].texts] == ["teacher", "student", "baseline"]
    log = next((tmp_path / "run").rglob("metrics.csv")).read_text().splitlines()
    rows = [dict(zip(log[0].split(","), line.split(","), strict=True)) for line in log[1:]]
    steps = [row for row in rows if row["train/loss"]]
    assert len(steps) == 4 and {float(row["train/tokens/own_text"]) for row in steps} == {0.0, 1.0}


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["teacher=cached"], "teacher=cached has the answers to the given texts alone"),
        (["+stages.distil.teacher=stored"], "teacher=stored has the answers to the given texts alone"),
        (["distill.alpha=0"], "losses.tokens learns from the targets alone"),
        (["hardware=cpu_fsdp"], "hardware.strategy=fsdp"),
        (["distill.lmbda=2"], "distill.lmbda=2"),
        (
            ["hardware.tokens_per_batch=64"],
            "tokens_per_batch=64 fills batches with the given texts.*tokens_per_batch=null",
        ),
        (["on_policy.top_p=0"], "on_policy.top_p=0"),
    ],
)
def test_what_nobody_could_score_is_refused(
    words: list[str], message: str, typed: list[str], compose: Compose, tmp_path: Path
) -> None:
    with pytest.raises(UserError, match=message):
        checked(compose(*typed, *words), tmp_path / "run")


def test_tasks_without_texts_to_write_are_refused(base: list[str], compose: Compose, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="which task=intent does not have it do"):
        checked(compose(*base, "distill.lmbda=0.5"), tmp_path / "run")
