"""PyLate loads the folders of late interaction that mangakd writes, with equal scores, and mangakd those that PyLate saves.

PyLate needs an environment of its own: MANGAKD_PYLATE_PYTHON names its Python (make test-pylate).
"""

import json
import os
import subprocess
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import save_tiny

from mangakd.core.spec import Head
from mangakd.data.apart import tokenise_apart
from mangakd.export.hf import save_student
from mangakd.models import load
from mangakd.models.late import Interaction, Late, of_folder
from mangakd.models.sentence_transformers import Settings

PYTHON = os.environ.get("MANGAKD_PYLATE_PYTHON")
if PYTHON is None:
    pytest.skip("needs PyLate: make test-pylate", allow_module_level=True)

LENGTH, SCORE = 40, Head("score", 1)
QUERIES = [
    "where is my order?",
    "refund",
    "Café 東京, 12.50 €",
    "a query that is longer than the others, with some words",
]
DOCUMENTS = ["It is on its way, the parcel.", "no", "Tokyo; cafés: (many) ... of them!", "a very long document " * 40]
OWN = {
    "bare": {"dims": 16},
    "prefixes": {"dims": 16, "query_prefix": "[unused1]", "document_prefix": "[unused2]"},
    "colbert": {
        "query_prefix": "[unused1]",
        "document_prefix": "[unused2]",
        "query_length": 32,
        "skip": [".", ",", "!"],
    },
    "attending": {"query_length": 32, "attend": True},
}


def scores(path: Path) -> np.ndarray:
    tokenizer, stored = load.load_tokenizer(str(path)), of_folder(path)
    outline = load.outline_trained(str(path), "teacher.path", "score")
    assert outline is not None and stored is not None
    model = load.encoder(outline.read(torch.float32), SCORE, "late", tokenizer).eval()
    pairs = tokenise_apart(QUERIES, DOCUMENTS, tokenizer, stored[0], LENGTH, path / "tokens")
    inputs = {name: torch.from_numpy(each) for name, each in pairs.inputs(np.arange(len(QUERIES)), 0).items()}
    with torch.no_grad():
        return model(inputs).answer[:, 0].numpy()


def test_scores_are_equal_in_both_directions(tmp_path: Path) -> None:
    plain = save_tiny(tmp_path / "plain", labels=None)
    tokenizer = load.load_tokenizer(str(plain))
    questions = []
    for name, options in OWN.items():
        torch.manual_seed(0)
        outline = load.outline_for(str(plain), SCORE, "student.path", Interaction.of(options, "student.interaction"))
        made = load.encoder(outline.read(torch.float32), SCORE, "student", tokenizer)
        save_student(
            made.model, tokenizer, tmp_path / name, "", pooling=made.pooling, settings=Settings(max_length=LENGTH)
        )
        questions.append({"folder": str(tmp_path / name), "save": str(tmp_path / f"{name} of PyLate")})
    made_there = {"query_length": 32, "document_length": LENGTH, "embedding_size": 24}
    questions.append({"folder": str(plain), "save": str(tmp_path / "PyLate"), **made_there})
    side, asked = Path(__file__).with_name("pylate_side.py"), {"queries": QUERIES, "documents": DOCUMENTS}
    done = subprocess.run(
        [str(PYTHON), str(side)], input=json.dumps([{**question, **asked} for question in questions]),
        capture_output=True, text=True, timeout=600, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-3000:]
    for question, answer in zip(questions, json.loads(done.stdout.splitlines()[-1]), strict=True):
        saved = Path(question["save"])
        if (own := Path(question["folder"])) != plain:
            np.testing.assert_allclose(scores(own), answer, rtol=1e-5, err_msg=own.name)
        np.testing.assert_allclose(scores(saved), answer, rtol=1e-5, err_msg=saved.name)
        assert np.ptp(answer) > 0.1
    stored = of_folder(tmp_path / "PyLate")
    assert stored is not None
    assert stored[0] == Late(24, "[Q] ", "[D] ", 32, False, stored[0].skip) and len(stored[0].skip) == 32
