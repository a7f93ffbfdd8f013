"""Late interaction by the command: cross-encoder → late, late → late, the folders in between, and what preflight refuses."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from conftest import checked
from ranking_rows import rows, written
from warm import Command

from mangakd.core.errors import UserError
from mangakd.core.spec import Head
from mangakd.evaluation import predictions
from mangakd.models import load
from mangakd.models.encoder import Encoder
from mangakd.models.late import Interaction, Late, of_folder
from mangakd.runs.texts import Tokeniser
from mangakd.tasks.rerank.task import Rerank


@pytest.fixture
def given(tiny_fresh: Path, tmp_path: Path) -> list[str]:
    sizes = {"path": 48, "val_path": 12, "test_path": 12}
    files = [
        f"data.{key}={written(tmp_path / f'{key}.jsonl', rows(count, seed))}"
        for seed, (key, count) in enumerate(sizes.items())
    ]
    return [
        "task=rerank", *files, f"teacher.path={tiny_fresh}", "student.layers=[1,3]", "hardware=cpu", "hardware.precision=32-true",
        "hardware.tasks.score.batch_size=6", "data.max_length=24", "teacher.fit.epochs=3", "teacher.fit.lr=3e-3",
        "optim.lr=3e-3", "trainer.max_epochs=2", "logger=[]", "losses=[listwise_kl,list_net]",
    ]  # fmt: skip


def model_of(folder: Path) -> Encoder:
    path = str(folder)
    outline = load.outline_trained(path, "student.path", "score")
    assert outline is not None
    tokenizer = load.load_tokenizer(path, "student.path")
    return load.encoder(outline.read(torch.float32), outline.head, "student", tokenizer).eval()


def test_cross_to_late_and_from_its_folder_to_late(
    given: list[str], compose: Callable[..., Any], run_here: Callable[..., None], command: Command, tmp_path: Path
) -> None:
    one = tmp_path / "one"
    options = ("student.interaction={dims: 8, query_prefix: '[unused1]'}", "baseline=true", f"hydra.run.dir={one}")
    done = command("train.py", *given, *options, f"paths.cache={tmp_path / 'cache'}")
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-2000:]
    metrics, test = json.loads((one / "metrics.json").read_text()), predictions.load(one, "test")
    assert metrics["teacher/test/ndcg_exp@3"] > 0.5 and {"test/kl", "baseline/test/ndcg_exp@3"} <= metrics.keys()
    assert (np.isinf(test.answers["student"]["logits"]) == np.isnan(test.truth["grades"])).all()
    stored = of_folder(one / "student")
    assert stored is not None and stored[0] == Late(8, "[unused1]")
    assert "models.ColBERT" in (one / "student" / "README.md").read_text()
    student = model_of(one / "student")
    assert student.spec.layers == 2 and sum(p.numel() for p in student.parameters()) == metrics["student/params"]
    sizes = [(one / "student" / name).stat().st_size for name in ("model.safetensors", "1_Dense/model.safetensors")]
    assert metrics["student/megabytes"] == pytest.approx(sum(sizes) / 1e6)
    corpus = checked(compose(*given), tmp_path / "check").parts.corpus
    tokenizer = load.load_tokenizer(str(one / "student"))
    reader = Tokeniser(tokenizer, tokenizer, 24, tmp_path / "tokens", stored[0], stored[0])
    task = Rerank()
    split = task.encode(corpus.test, student.spec.head, reader)
    batch = split.collate(range(len(split)))
    with torch.no_grad():
        answers = task.ask(lambda batch: student(batch["student"]), batch)["logits"]
    np.testing.assert_allclose(answers.numpy(), test.answers["student"]["logits"], rtol=1e-4, atol=1e-5)

    # Late to late: the folder is the teacher, its layers and its linear layer the student's beginning, its answers stored.
    two = tmp_path / "two"
    given = [*given, f"teacher.path={one / 'student'}", "student.layers=[1]", "teacher.fit.mode=never"]
    run_here(compose(*given, "losses=[listwise_kl,margin_mse]", "teacher=cached"), two)
    again = predictions.load(two, "test")
    np.testing.assert_allclose(
        again.answers["teacher"]["logits"], test.answers["student"]["logits"], rtol=1e-4, atol=1e-5
    )
    stored = of_folder(two / "student")
    assert stored is not None and stored[0] == Late(8, "[unused1]")


def test_a_late_teacher_is_fine_tuned_and_live(
    given: list[str], compose: Callable[..., Any], run_here: Callable[..., None], tmp_path: Path
) -> None:
    options = (
        "teacher.interaction={dims: 16, document_prefix: '[unused2]', skip: ['.']}",
        "losses=[listwise_kl,list_net,hidden,relation]",
    )
    run_here(compose(*given, *options), tmp_path / "run")
    run = tmp_path / "run"
    metrics, test = json.loads((run / "metrics.json").read_text()), predictions.load(run, "test")
    checkpoint = torch.load(run / "checkpoints" / "last.ckpt", weights_only=False)
    assert "student.pooling.linear.weight" in checkpoint["state_dict"], "a resumed run has it, too"
    assert metrics["teacher/test/ndcg_exp@3"] > 0.75, "it learns"
    assert np.abs(test.answers["student"]["logits"][np.isfinite(test.truth["grades"])]).max() > 1, "sums over tokens"
    folder = next((tmp_path / "cache" / "teachers").iterdir())
    assert sum(p.numel() for p in model_of(folder).parameters()) == metrics["teacher/params"]
    for each in (folder, run / "student"):
        stored = of_folder(each)
        assert stored is not None and stored[0] == Late(16, "", "[unused2]", skip=(".",))
    other = checked(compose(*given, *options, "teacher.interaction=late"), tmp_path / "other")
    other.material.members.unread(other.parts.teacher.models[0])
    assert len([*(tmp_path / "cache" / "teachers").iterdir()]) == 2, "another linear layer is another teacher"


def test_members_that_read_in_two_ways_are_no_ensemble(
    given: list[str], compose: Callable[..., Any], tiny_fresh: Path, tmp_path: Path
) -> None:
    choice, tokenizer = Interaction.of({"dims": 8}, "key"), load.load_tokenizer(str(tiny_fresh))
    outline = load.outline_for(str(tiny_fresh), Head("score", 1), "key", choice)
    late = load.encoder(outline.read(torch.float32), outline.head, "late", tokenizer)
    late.save_pretrained(tmp_path / "late")
    tokenizer.save_pretrained(tmp_path / "late")
    paths = f"teacher.paths=[{tmp_path / 'late'},{tiny_fresh}]"
    with pytest.raises(UserError, match="members of the teacher read queries and documents in different ways") as error:
        checked(compose(*given, "teacher=ensemble", paths), tmp_path / "run")
    assert f"{tmp_path / 'late'}: each text alone {{dims: 8}}; {tiny_fresh}: both texts at once" in str(error.value)


LATE = "student.interaction=late"


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["student.interaction=colbert"], r"student\.interaction=colbert must be null, cross, late"),
        (["teacher.interaction={dim: 8}"], r"teacher\.interaction\.dim is unknown; did you mean dims"),
        ([LATE, "losses=[listwise_kl,hidden]"], r"losses\.hidden compares tokens.*the student reads each text alone"),
        ([LATE, "stages=quantised"], r"stages\.\w+\.quantise=\w+: a student of late interaction is not trained with quantisers"),
        (["student.interaction={query_prefix: '[Q] '}"], r"the prefix '\[Q\] ' of late interaction is no token"),
        (["student.interaction={query_length: 500}"], r"query_length=500 of the student.*positions for 128 tokens"),
        ([LATE, "stages=assistant_chain", "stages.assistant.student.layers=[1,2]"],
         r"the run's student .*Give both the same interaction"),
        ([LATE, "stages=assistant_chain", "stages.assistant.student.layers=[1,2]", "++stages.assistant.student.interaction=late"],
         r"teacher=previous: the student of the stage before would read the teacher's tokens"),
        ([LATE, "teacher.interaction=late", "data.max_length=4"], r"line 1 of data\.path=.*A query is never truncated"),
    ],
)  # fmt: skip
def test_preflight(
    options: list[str], message: str, given: list[str], compose: Callable[..., Any], tmp_path: Path
) -> None:
    with pytest.raises(UserError, match=f"(?s){message}"):
        checked(compose(*given, *options), tmp_path / "run")


def test_a_classifier_reads_no_pairs(base: list[str], compose: Callable[..., Any], tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"task=intent has no such pairs\. Set student\.interaction=cross"):
        checked(compose(*base, LATE), tmp_path / "run")
