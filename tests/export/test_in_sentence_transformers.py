"""sentence-transformers loads the folders that mangakd writes, with equal outputs, and mangakd those that it saves.

The library may be in an environment of its own: MANGAKD_SENTENCE_TRANSFORMERS_PYTHON names its Python.
"""

import importlib.util
import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from exported import MAX_LENGTH, student
from torch import nn
from transformers import AutoModel, AutoModelForSequenceClassification, AutoTokenizer

from mangakd.export import graph
from mangakd.export.hf import save_student
from mangakd.models import load
from mangakd.models.pooling import Dense, Pooling, VectorHead
from mangakd.models.sentence_transformers import Settings, kind_of, read_activation, read_settings, write_cross_encoder

PYTHON = os.environ.get("MANGAKD_SENTENCE_TRANSFORMERS_PYTHON")
if PYTHON is None and importlib.util.find_spec("sentence_transformers"):
    PYTHON = sys.executable
if PYTHON is None:
    pytest.skip("needs sentence-transformers: make test-sentence-transformers", allow_module_level=True)

SAME = 1e-5
PAIRS = [
    ("where is my order", "it is on its way"), ("", "a"), ("refund", ""), ("Café 東京", "12.50 €\tplease"),
    ("short", "a very long document " * 40),
]  # fmt: skip
TEXTS = ["where is my order?", "", "Café 東京, 12.50 €\tplease", "a very long text " * 40, "no"]
LAYERS = (Dense(32, 48, bias=False, activation="GELU"), Dense(48, 16, activation="Identity"))
POOLINGS = {
    "mean": Pooling("mean", normalize=True), "cls": Pooling("cls", normalize=False, dense=(Dense(32, 8),)),
    "max": Pooling("max", normalize=True, dense=LAYERS), "last": Pooling("last", normalize=False),
}  # fmt: skip
PROMPTS = Settings({"query": "query: ", "passage": "passage: "}, max_length=MAX_LENGTH, similarity="dot")
ACTIVATIONS = {"identity": nn.Identity(), "sigmoid": nn.Sigmoid(), "softplus": nn.Softplus()}


def ask(*questions: dict[str, Any]) -> list[dict[str, Any]]:
    side = Path(__file__).with_name("sentence_transformers_side.py")
    done = subprocess.run(
        [str(PYTHON), str(side)], input=json.dumps(questions), capture_output=True, text=True, timeout=600, check=False
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return json.loads(done.stdout.splitlines()[-1])


def scores(folder: Path) -> list[float]:
    """Of PAIRS, pair by pair, as the folder's settings say."""
    tokenizer, length = load.load_tokenizer(str(folder)), read_settings(folder).max_length
    model, activation = AutoModelForSequenceClassification.from_pretrained(folder).eval(), read_activation(folder)

    @torch.no_grad()
    def score(pair: tuple[str, str]) -> float:
        query, document = pair
        encoded = tokenizer([query], [document], truncation="longest_first", max_length=length, return_tensors="pt")
        return float(activation(model(**encoded).logits)[0, 0])

    return [score(pair) for pair in PAIRS]


def vectors(folder: Path, prompt: str | None) -> np.ndarray:
    settings = read_settings(folder)
    start = settings.prompts.get(prompt or settings.default_prompt or "", "")
    source = graph.read(folder, settings.max_length)
    return np.concatenate([source.answer(source.encode([start + text])) for text in TEXTS])


def embedder(folder: Path, pooling: Pooling) -> Path:
    made = student(folder.with_name(f"{folder.name}_encoder"), "embedding")
    torch.manual_seed(1)
    save_student(
        AutoModel.from_pretrained(made), AutoTokenizer.from_pretrained(made), folder, "", pooling=VectorHead(pooling),
        settings=PROMPTS,
    )  # fmt: skip
    return folder


@pytest.fixture(scope="module")
def answers(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], tuple[Path, dict[str, Any]]]:
    """name → the folder, and what sentence-transformers answers from it. One process answers for all: it starts slowly."""
    root = tmp_path_factory.mktemp("folders")
    questions = []
    for name, activation in {**ACTIVATIONS, "leaky": nn.LeakyReLU(0.3)}.items():
        folder = student(root / name, "regression")
        write_cross_encoder(Settings(max_length=MAX_LENGTH), activation, folder)
        questions.append({"folder": str(folder), "pairs": PAIRS, "save": str(root / f"{name}_saved")})
    for name, pooling in POOLINGS.items():
        folder = embedder(root / name, pooling)
        questions.append({"folder": str(folder), "texts": TEXTS, "save": str(root / f"{name}_saved")})
    found = {Path(q["folder"]).name: answer for q, answer in zip(questions, ask(*questions), strict=True)}
    return lambda name: (root / name, found[name])


@pytest.mark.parametrize("name", ACTIVATIONS)
def test_cross_encoders(answers: Callable[[str], tuple[Path, dict[str, Any]]], name: str) -> None:
    folder, answer = answers(name)
    expected = scores(folder)
    assert np.ptp(expected) > 0.01, "the pairs differ"
    assert answer["scores"] == pytest.approx(expected, abs=SAME)
    saved = folder.with_name(f"{name}_saved")
    assert kind_of(saved) == "CrossEncoder" and scores(saved) == pytest.approx(answer["scores"], abs=SAME)


@pytest.mark.parametrize("name", POOLINGS)
def test_sentence_transformers_with_prompts_and_dense_layers(
    answers: Callable[[str], tuple[Path, dict[str, Any]]], name: str
) -> None:
    folder, answer = answers(name)
    for prompt in (None, "query", "document"):
        expected = vectors(folder, prompt)
        assert expected.shape[1] == POOLINGS[name].width(32)
        np.testing.assert_allclose(answer[prompt or "plain"], expected, atol=SAME)
        np.testing.assert_allclose(vectors(folder.with_name(f"{name}_saved"), prompt), expected, atol=SAME)
    assert not np.allclose(answer["query"], answer["document"], atol=1e-3)
    assert read_settings(folder.with_name(f"{name}_saved")).similarity == "dot"


def test_an_activation_that_it_would_make_without_its_arguments_is_refused_by_it(
    answers: Callable[[str], tuple[Path, dict[str, Any]]],
) -> None:
    folder, answer = answers("leaky")
    assert "LeakyReLU(negative_slope=0" in answer["error"]
    assert repr(read_activation(folder)) == "LeakyReLU(negative_slope=0.3)"
