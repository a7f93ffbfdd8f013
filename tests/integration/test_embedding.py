"""`task=embedding` by the command, from texts to a student that sentence-transformers loads: a tiny model, made-up sentences.

Two sentences resemble each other by the words that they share, so that even an untrained encoder has something to teach.
"""

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import checked
from omegaconf import DictConfig
from scipy.stats import spearmanr
from warm import Command

from mangakd.core.errors import UserError
from mangakd.evaluation import predictions
from mangakd.models import load, location
from mangakd.models.pooling import Dense, Pooling, VectorHead, of_folder, save_head
from mangakd.models.sentence_transformers import read_settings

NOUNS = "time year people way day man thing woman life child world school state family student group country problem hand part"
WORDS = NOUNS.split()
Compose = Callable[..., DictConfig]
Rows = list[dict[str, object]]


def sentence(rng: np.random.Generator, words: int = 6) -> list[str]:
    return [str(word) for word in rng.choice(WORDS, words, replace=False)]


def scored(count: int, seed: int) -> Rows:
    rng, rows = np.random.default_rng(seed), []
    for i in range(count):
        one, other, shared = sentence(rng), sentence(rng), i % 7
        rows.append(
            {"anchor": " ".join(one), "positive": " ".join(one[:shared] + other[shared:]), "score": shared * 5 / 6}
        )
    return rows  # type: ignore[return-value]


def pairs(count: int, seed: int) -> Rows:
    rng, rows = np.random.default_rng(seed), []
    for i in range(count):
        one, other = sentence(rng), sentence(rng)
        rows.append({"question": " ".join(one), "answer": " ".join([*one[:4], *other[:2]])})
        if i % 2:
            rows[-1]["negatives"] = [" ".join(sentence(rng))]
    return rows  # type: ignore[return-value]


def written(file: Path, rows: Rows) -> str:
    file.write_text("\n".join(map(json.dumps, rows)) + "\n")
    return str(file)


@pytest.fixture
def common(tiny_fresh: Path, tmp_path: Path) -> list[str]:
    return [
        "task=embedding", "data=files", f"teacher.path={tiny_fresh}", "hardware=cpu", "hardware.precision=32-true",
        "hardware.batch_size=16", "optim.lr=2e-3", f"paths.cache={tmp_path / 'cache'}", f"hydra.run.dir={tmp_path / 'run'}",
    ]  # fmt: skip


@pytest.fixture
def texts_alone(common: list[str], tmp_path: Path) -> list[str]:
    """Training texts without any label; pairs with scores to judge."""
    rng = np.random.default_rng(0)
    train = written(tmp_path / "train.jsonl", [{"text": " ".join(sentence(rng))} for _ in range(96)])
    files = {"path": train, "val_path": written(tmp_path / "val.jsonl", scored(42, 1)),
             "test_path": written(tmp_path / "test.jsonl", scored(49, 2))}  # fmt: skip
    return [*common, *(f"data.{key}={file}" for key, file in files.items()), "task.most=5", "trainer.max_epochs=3"]


@pytest.fixture
def questions(common: list[str], tmp_path: Path) -> list[str]:
    counts = {"path": 60, "val_path": 24, "test_path": 30}
    files = [f"data.{key}={written(tmp_path / f'{key}.jsonl', pairs(n, n))}" for key, n in counts.items()]
    columns = "data.columns={anchor: question, positive: answer}"
    return [*common, *files, columns, "task.monitor=ndcg@10", "trainer.max_epochs=2"]


def run(command: Command, *typed: str) -> str:
    done = command("train.py", *typed)
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-2000:]
    return done.stdout


def cosines(answers: dict[str, np.ndarray], size: int | None = None) -> np.ndarray:
    a, p = (answers[name][:, :size].astype(np.float64) for name in ("anchor", "positive"))
    return (a * p).sum(1) / np.linalg.norm(a, axis=1) / np.linalg.norm(p, axis=1)


def test_texts_without_labels_teach_a_student_of_the_teacher_s_layers(
    texts_alone: list[str], command: Command, tmp_path: Path
) -> None:
    printed = run(command, *texts_alone, "student.layers=[1,3]", "task.dims=[32,8]", "teacher=cached")
    folder = tmp_path / "run"
    metrics, test = json.loads((folder / "metrics.json").read_text()), predictions.load(folder, "test")
    for model, prefix in {"teacher": "teacher/", "student": ""}.items():
        for name, size in {"spearman": None, "spearman_8": 8}.items():
            expected = spearmanr(cosines(test.answers[model], size).round(9), test.truth["score"]).statistic
            assert metrics[f"{prefix}test/{name}"] == pytest.approx(expected, abs=1e-6)
    assert metrics["test/likeness"] > 0.8 and metrics["test/retention"] > 0.8
    assert test.truth["score"].max() == 1.0 and (test.truth["labels"] == -100).all()
    report = (folder / "report.md").read_text()
    assert "Fewer dimensions" in report and "teacher, PCA" in report and "accuracy" not in report
    assert "likeness" in printed and "Spearman, 8" in printed
    student = location.locate(str(folder / "student"))
    assert of_folder(student) == Pooling("mean", normalize=True) and read_settings(student).dims == (32, 8)
    outline = load.outline_trained(student, "student.path", "vector")
    assert outline is not None
    tokenizer = load.load_tokenizer(student)
    encoder = load.encoder(outline.read(torch.float32), outline.head, "student", tokenizer).eval()
    one = json.loads((tmp_path / "test.jsonl").read_text().splitlines()[0])["anchor"]
    with torch.no_grad():
        vector = encoder(tokenizer([one], return_tensors="pt")).answer
    np.testing.assert_allclose(vector[0].numpy(), test.answers["student"]["anchor"][0], atol=1e-5)


def test_pairs_teach_a_narrower_student_and_its_baseline(
    questions: list[str], command: Command, compose: Compose, tmp_path: Path
) -> None:
    """A student of sizes, started from the teacher: its vectors are narrower, so `vector` learns a projection, which stays out of
    the student.

    The teacher mines negatives once: a run that goes on from a checkpoint finds them, and is not taken for another run.
    """
    sizes = ["num_hidden_layers=1", "hidden_size=16", "num_attention_heads=2", "intermediate_size=32"]
    typed = [*questions, "student=bert_mini", *(f"student.sizes.{one}" for one in sizes), "losses=[contrastive]",
             "losses.contrastive.soft=0.5", "+trainer.log_every_n_steps=1", "task.prompts.student.query='query: '",
             "task.hard_negatives.count=2", "student.start=teacher"]  # fmt: skip
    run(command, *typed, "baseline=true")
    folder = tmp_path / "run"
    assert "the student starts from the teacher: it explains" in (folder / "logs" / "run.log").read_text()
    (mined,) = (tmp_path / "cache" / "mined").glob("*.npy")
    assert np.load(mined).shape == (60, 2) and "hard negatives: " in (folder / "logs" / "run.log").read_text()
    checked(compose(*typed, f"resume={folder / 'checkpoints' / 'last.ckpt'}"), tmp_path / "again")
    metrics, test = json.loads((folder / "metrics.json").read_text()), predictions.load(folder, "test")
    assert {"baseline/test/ndcg@10", "test/recall@1", "val/ndcg@10", "teacher/test/mrr@10"} <= metrics.keys()
    assert "reference/untrained student/test/ndcg@10" in metrics
    assert metrics["test/mean_cosine"] < 0.999
    answers = test.answers["student"]
    assert answers["anchor"].shape == (30, 16) and test.answers["teacher"]["anchor"].shape == (30, 32)
    ranks = 1 + (answers["anchor"] @ answers["positive"].T > cosines(answers)[:, None] + 1e-6).sum(1)
    assert metrics["test/recall@10"] == pytest.approx((ranks <= 10).mean(), abs=1e-6)
    saved = torch.load(folder / "checkpoints" / "last.ckpt", weights_only=False)["state_dict"]
    assert saved["losses.losses.vector.projections.16.weight"].shape == (32, 16)
    curves = (folder / "logs" / "metrics.csv").read_text().splitlines()[0]
    assert all(f"train/loss/{name}" in curves for name in ("vector", "similarity", "contrastive"))


def test_a_wider_teacher_with_a_dense_layer_teaches_by_its_main_directions(
    texts_alone: list[str], tiny_fresh: Path, tmp_path: Path, command: Command
) -> None:
    import shutil

    wide = tmp_path / "wide"
    shutil.copytree(tiny_fresh, wide)
    torch.manual_seed(0)
    save_head(VectorHead(Pooling("mean", dense=(Dense(32, 48, activation="Identity"),))), 32, wide)
    run(command, *texts_alone, f"teacher.path={wide}", f"student.path={tiny_fresh}", "losses.vector.width=pca",
        "losses.vector.dims=[32,8]", "hardware.eval_batch_size=32")  # fmt: skip
    metrics = json.loads((tmp_path / "run" / "metrics.json").read_text())
    assert metrics["test/likeness"] > 0.7
    saved = torch.load(tmp_path / "run" / "checkpoints" / "last.ckpt", weights_only=False)["state_dict"]
    directions = saved["losses.losses.vector.directions"]
    torch.testing.assert_close(directions.T @ directions, torch.eye(32), rtol=0, atol=1e-4)


def test_vectors_of_a_file_teach_without_a_model(
    questions: list[str], tiny_fresh: Path, tmp_path: Path, command: Command
) -> None:
    """A text's vector is the sum of its words' vectors, wider than the student's."""
    words = dict(zip(WORDS, np.random.default_rng(0).normal(size=(len(WORDS), 48)), strict=True))
    lines = [json.loads(line) for file in tmp_path.glob("*path.jsonl") for line in file.read_text().splitlines()]
    texts = sorted({text for line in lines for text in (line["question"], line["answer"], *line.get("negatives", ()))})
    np.save(tmp_path / "api.npy", np.array([sum(words[word] for word in text.split()) for text in texts], "f4"))
    (tmp_path / "api.txt").write_text("\n".join(texts))
    run(command, *questions, "teacher=vectors", f"teacher.path={tmp_path / 'api.npy'}", f"student.path={tiny_fresh}",
        "losses.vector.width=pca", "task.dims=[16,8]", "losses.vector.dims=[32,8]", "losses=[contrastive]",
        "losses.contrastive.soft=0.5",
    )  # fmt: skip
    metrics, test = (
        json.loads((tmp_path / "run" / "metrics.json").read_text()),
        predictions.load(tmp_path / "run", "test"),
    )
    assert test.answers["teacher"]["anchor"].shape == (30, 48) and "teacher/params" not in metrics
    assert metrics["test/likeness"] > 0.3 and metrics["teacher/test/ndcg@10"] > 0.5
    saved = torch.load(tmp_path / "run" / "checkpoints" / "last.ckpt", weights_only=False)["state_dict"]
    assert saved["losses.losses.vector.directions"].shape == (48, 32)


@pytest.mark.parametrize(
    ("typed", "words"),
    [
        (["task.monitor=ndcg@10"], r"validation has pairs with a score .*Set task\.monitor=spearman"),
        (["task.monitor=accuracy"], r"task\.monitor='accuracy' is no score of embeddings"),
        (["baseline=true", "teacher.fit.mode=always"], r"baseline=true, teacher\.fit\.mode=always: learning from labels"),
        (["losses=[contrastive]"], r"losses\.contrastive: learning from labels, and no row of train has one"),
        (["task.hard_negatives.count=2"], r"task\.hard_negatives\.count=2 takes the positives of other rows, and train"),
        (["losses=[output]"], r"losses\.output .* needs a head of labels; the head is 32 dimensions"),
        (["teacher=ensemble"], r"takes a mean of vectors, .*teacher\.combine=concatenated"),
        (["teacher=ensemble", "teacher.combine=concatenated", "teacher.weights=[1,2]"], r"must be 3 numbers ≥ 0"),
        (["teacher=vectors", "teacher.path=none.npy", "student.path=embedded"],
         r"teacher\.path=none\.npy: there is no such file"),
        (["task.dims=[64]"], r"losses\.similarity\.dims=\[64\] must be different whole numbers from 1 to 32"),
        (["task.most=2"], r"line 4 of data\.val_path=.* has the score .*outside 0 … task\.most=2"),
    ],
)  # fmt: skip
def test_preflight_tells_what_does_not_fit(
    texts_alone: list[str], compose: Compose, tmp_path: Path, typed: list[str], words: str
) -> None:
    with pytest.raises(UserError, match=words):
        checked(compose(*texts_alone, "student.layers=[1,3]", *typed), tmp_path / "run")


def test_a_task_that_fails_is_the_only_problem(questions: list[str], compose: Compose, tmp_path: Path) -> None:
    """The columns that its file maps were said to be of no task."""
    with pytest.raises(UserError, match=r"^1 problem found.*\n.*task\.hard_negatives\.share=2 must lie in"):
        checked(compose(*questions, "student.layers=[1,3]", "task.hard_negatives.share=2"), tmp_path / "run")
