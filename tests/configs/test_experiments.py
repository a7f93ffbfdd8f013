"""Templates: conf/experiment with headers that say what to type and to expect, checked and trained in small; and another team's,
from a package or folder of its own.
"""

import json
import os
import re
import shlex
import shutil
import subprocess
import sys
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from conftest import LABELS, REPO, checked, save_tiny
from omegaconf import DictConfig
from ranking_rows import rows, written
from warm import Command

from mangakd.models import embedded_t5
from mangakd.models.load import outline_trained

Compose = Callable[..., DictConfig]
EXPERIMENTS = sorted((REPO / "conf" / "experiment").glob("*.yaml"))
PACKAGE = REPO / "tests" / "example_package"
TEAM = PACKAGE / "mangashop_templates" / "conf"
HEADER = re.compile(
    r"# @package _global_\n"
    r"# Command:   python train\.py (?P<command>.+)\n"
    r"# Purpose:   (?P<purpose>.+)\n"
    r"# Expected:  (?P<expected>not measured yet|.*\d.*\(.+\))\n"  # numbers, and in brackets the machine they came from
    r"# Owner:     (?P<owner>.+ team)\n"
)
each = pytest.mark.parametrize("file", EXPERIMENTS, ids=lambda file: file.stem)


@pytest.mark.parametrize("file", [*EXPERIMENTS, *TEAM.glob("experiment/*.yaml")], ids=lambda file: file.stem)
def test_the_header_says_what_to_type_and_what_to_expect(file: Path, compose: Compose) -> None:
    header = HEADER.match(file.read_text())
    assert header, f"{file.name} must begin with Command, Purpose, Expected and Owner, as quickstart.yaml does"
    typed = shlex.split(header["command"])
    assert f"experiment={file.stem}" in typed
    if file in EXPERIMENTS:
        compose(*typed)


# Of a student that can start from a tiny teacher.
SIZES = ("num_hidden_layers=1", "hidden_size=16", "num_attention_heads=2", "intermediate_size=32")


@pytest.fixture
def offline(tmp_path: Path, tiny_distilbert: Path) -> dict[str, list[str]]:
    """Template → what it leaves to its user, or takes from the hub, as local files of the same kinds."""
    clinc = tmp_path / "data_full.json"
    splits = ("train", "val", "test")
    intents = {split: [[f"{split} {name} {i}", name] for name in LABELS for i in range(20)] for split in splits}
    clinc.write_text(json.dumps(intents))
    texts, pairs = tmp_path / "texts.jsonl", tmp_path / "pairs.jsonl"
    texts.write_text("".join(json.dumps({"text": f"text {i}"}) + "\n" for i in range(40)))
    scored = [{"anchor": f"text {i}", "positive": f"text {i // 2}", "score": i % 6} for i in range(20)]
    pairs.write_text("".join(json.dumps(row) + "\n" for row in scored))
    sts = [f"data.path={texts}", f"data.val_path={pairs}", f"data.test_path={pairs}"]
    keys = ("path", "val_path", "test_path")
    turns = tmp_path / "turns.jsonl"
    said: list[dict[str, Any]] = [
        {
            "history": [f"who is {i - 1}?"],
            "utterance": f"and {i}?",
            "rewrite": f"who is {i}?",
            "answer": f"{i} is a person",
        }
        for i in range(30)
    ]
    turns.write_text("".join(json.dumps({**row, "split": splits[i % 3]}) + "\n" for i, row in enumerate(said)))
    t5 = embedded_t5.folder([row["rewrite"] for row in said], tmp_path / "cache")
    groups = [f"data.{key}={written(tmp_path / f'{key}.jsonl', rows(20, seed))}" for seed, key in enumerate(keys)]
    return {
        "embedding_matryoshka": sts,
        "manga_intent_tinybert": [f"teacher.path={tiny_distilbert}", *(f"student.sizes.{key}" for key in SIZES)],
        "clinc150_from_teacher": [f"data.path={clinc}"],
        "clinc150_two_stage": [f"data.path={clinc}"],
        "clinc150_few_labels": [f"data.path={clinc}"],
        "rerank_medquad": groups,
        "rewrite_sequence": [f"data.path={turns}", f"teacher.path={t5}", f"student.path={t5}"],
        "rewrite_qrecc": [f"data.path={turns}", f"teacher.path={t5}", f"student.path={t5}"],
    }


@each
def test_a_template_passes_preflight(
    file: Path, offline: dict[str, list[str]], compose: Compose, tmp_path: Path
) -> None:
    given = [*offline.get(file.stem, []), "hardware=cpu", f"paths.cache={tmp_path / 'cache'}"]
    checked(compose(f"experiment={file.stem}", *given), tmp_path / "run")


SEARCH_DATA = [
    "data=manga_search",
    "data.max_length=64",
    "data.train_limit=24",
    "data.val_limit=6",
    "data.test_limit=6",
]
INTENT = [
    "data=manga_intent", "data.train_limit=100", "data.val_limit=80", "data.test_limit=80", "data.unlabelled=20",
]  # fmt: skip
# Templates that ask more of their data than files have.
OWN_DATA = {
    "rerank_quickstart": [*SEARCH_DATA, "data.documents=3"],
    "rerank_medquad": [*SEARCH_DATA, "data.documents=3"],
    "embedding_quickstart": SEARCH_DATA,
    "response_quickstart": ["data=manga_answers", "data.train_limit=40", "data.val_limit=6", "data.test_limit=6"],
    "rewrite_quickstart": ["data=manga_rewrites", "data.train_limit=40", "data.val_limit=6", "data.test_limit=6"],
    "quickstart": INTENT,
    "ensemble_to_one": INTENT,
}  # fmt: skip


@each
def test_a_template_trains(
    file: Path,
    offline: dict[str, list[str]],
    compose: Compose,
    small_run: list[str],
    tiny_fresh: Path,
    run_here: Callable[..., None],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """All its stages, an epoch each, on tiny models and a few rows."""
    tiny = [
        *small_run, f"teacher.path={tiny_fresh}", "teacher.fit.epochs=1", "student=teacher_layers", "student.layers=[1,3]",
        "student.path=null", "trainer.max_epochs=1", "data.train_limit=null", "data.val_limit=null", "data.test_limit=null",
        f"experiment={file.stem}",
    ]  # fmt: skip
    if file.stem in OWN_DATA:
        tiny = [word for word in tiny if not word.startswith("data")] + OWN_DATA[file.stem]
    monkeypatch.setenv("MANGAKD_CACHE", str(tmp_path / "cache"))
    if file.stem == "response_quickstart":
        tiny += ["teacher.path=embedded_tiny", "stages.distil.limit=16"]
    if file.stem == "rewrite_quickstart":
        tiny += ["teacher.path=embedded_t5", "stages.distil.limit=16"]
    if file.stem in ("rewrite_qrecc", "rewrite_sequence"):
        tiny = [word for word in tiny if not word.startswith(("data", "student"))]
        tiny += [*offline[file.stem], "data.max_length=64", "teacher.fit.epochs=1"]
    if file.stem == "embedding_matryoshka":
        tiny = [word for word in tiny if not word.startswith("data")] + [*offline[file.stem], "task.dims=[32,8]"]
    config = compose(*tiny)
    stages = {name: stage for name, stage in config.stages.items() if "epochs" in stage}
    run_here(compose(*tiny, *(f"stages.{name}.epochs=1" for name in stages)), tmp_path / "run")
    metrics = json.loads((tmp_path / "run" / "metrics.json").read_text())
    assert f"test/{config.task.monitor}" in metrics
    assert (f"baseline/test/{config.task.monitor}" in metrics) == config.baseline


def test_the_reranker_of_mangaassist(compose: Compose, tmp_path: Path, offline: dict[str, list[str]]) -> None:
    """A folder of the same shape stands for the hub's: it has a head already, so that nothing is fine-tuned."""
    named = compose("task=rerank", "models=mangaassist_rerank")
    assert named.teacher.path == "cross-encoder/ms-marco-MiniLM-L6-v2"
    teacher = save_tiny(tmp_path / "teacher", labels=("LABEL_0",), num_hidden_layers=6)
    words = [f"teacher.path={teacher}", "data.max_length=64", *offline["rerank_medquad"]]
    cache = tmp_path / "cache"
    run = checked(
        compose("task=rerank", "models=mangaassist_rerank", "hardware=cpu", f"paths.cache={cache}", *words),
        tmp_path / "run",
    )
    assert run.models.head.kind == "score" and outline_trained(str(teacher), "teacher.path", "score") is not None
    assert run.models.student_shape.config.num_hidden_layers == 4


def test_help_lists_the_templates() -> None:
    printed = python("train.py", "--help").stdout
    listed = next(line for line in printed.splitlines() if line.startswith("experiment: "))
    assert listed.removeprefix("experiment: ").split(", ") == [file.stem for file in EXPERIMENTS]


def python(*words: str, **environment: str) -> "subprocess.CompletedProcess[str]":
    """A process of its own, with PYTHONPATH and the like set anew."""
    known = {**os.environ, **environment}
    typed = [sys.executable, str(REPO / words[0]), *words[1:]]
    return subprocess.run(typed, capture_output=True, text=True, timeout=600, env=known, check=False)


SEARCH = "hydra.searchpath=[pkg://mangashop_templates.conf]"
INSTALLED = {"PYTHONPATH": str(PACKAGE), "MANGASHOP_DATA": str(PACKAGE)}


@pytest.fixture
def tiny_run(tiny_fresh: Path, tmp_path: Path) -> list[str]:
    return [
        f"teacher.path={tiny_fresh}", "student.layers=[1,3]", "hardware=cpu", "hardware.batch_size=4", "trainer.max_epochs=1",
        "teacher.fit.epochs=8", "teacher.fit.lr=3e-3", f"paths.cache={tmp_path / 'cache'}", f"hydra.run.dir={tmp_path / 'run'}",
    ]  # fmt: skip


def test_a_template_in_a_folder_is_checked(tiny_run: list[str], command: Command, tmp_path: Path) -> None:
    """With its loss, which preflight binds and finds wrong; a right one is trained below."""
    wrong = ["experiment=shop_intent", "losses.margin.most=0", "validate=true", *tiny_run]
    done = command("train.py", f"--config-dir={TEAM}", *wrong, **INSTALLED)
    assert done.returncode == 1 and "1 problem found" in done.stderr, done.stderr
    assert "losses.margin.most=0 must be above 0" in done.stderr
    assert not (tmp_path / "run").exists()


def test_a_template_in_a_package_trains(tiny_run: list[str], command: Command, tmp_path: Path) -> None:
    done = command("train.py", SEARCH, "experiment=shop_intent", *tiny_run, **INSTALLED)
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-2000:]
    assert "train/loss/margin" in (tmp_path / "run" / "logs" / "metrics.csv").read_text()
    assert "_target_: mangashop_templates.margin.MarginLoss" in (tmp_path / "run" / "config.yaml").read_text()
    card = (tmp_path / "run" / "student" / "README.md").read_text()
    assert "margin" in card and "the manga shop" in card


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        ([SEARCH, "experiment=shop_intnt"], ["did you mean shop_intent?", "rewrite_sequence, shop_intent."]),
        (
            [SEARCH, "losses=[hard_label,margn]"],
            ["losses=margn is unknown; did you mean margin, margin_mse, margin_hinge?"],
        ),
        ([f"--config-dir={TEAM}", "data=shop_question"], ["did you mean shop_questions?"]),
        (["experiment=shop_intent"], ["experiment=shop_intent is unknown"]),
        (["hydra.searchpath=[pkg://mangashop.conf]", "experiment=shop_intent"], ["pkg://mangashop.conf is not there"]),
        (["hydra.searchpath=[file:///nowhere]", "experiment=shop_intent"], ["file:///nowhere is not there"]),
    ],
)
def test_a_misspelt_template_is_told_what_there_is(words: list[str], expected: list[str], command: Command) -> None:
    done = command("train.py", *words, **INSTALLED)
    assert done.returncode == 1
    assert all(part in done.stderr for part in expected), done.stderr
    assert ("shop_intent." in done.stderr) == (words[0] == SEARCH and "experiment" in words[1])
    assert "Traceback" not in done.stderr


def test_the_example_package_installs_with_its_templates(tmp_path: Path) -> None:
    """As pip would build it, without a network: the wheel holds the yaml files."""
    pytest.importorskip("setuptools")
    build = f"from setuptools import build_meta; build_meta.build_wheel({str(tmp_path)!r})"
    copy = shutil.copytree(PACKAGE, tmp_path / "source")
    done = subprocess.run([sys.executable, "-c", build], cwd=copy, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    with zipfile.ZipFile(next(tmp_path.glob("*.whl"))) as wheel:
        held = wheel.namelist()
    for file in [*TEAM.glob("*/*.yaml"), TEAM / "__init__.py", *PACKAGE.glob("mangashop_templates/**/*.py")]:
        assert str(file.relative_to(PACKAGE)) in held
