"""Scaled rotary positions in GGUF files: llama.cpp computes with them as transformers does; other settings are refused."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from language_folder import save_exportable

from mangakd.core.errors import UserError
from mangakd.export.language import student
from mangakd.export.language.gguf_model import check_architecture
from mangakd.export.language.torch_engine import read_engine
from mangakd.export.language.variants import make, open_variant

for package in ("gguf", "xllamacpp"):
    pytest.importorskip(package)

THETA = {"rope_theta": 100.0}  # so that the waves of heads of 16 numbers are short, between and long against 64 tokens
LLAMA3 = {"factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0, "original_max_position_embeddings": 64}
ROPES: dict[str, dict[str, Any]] = {
    "linear": {"rope_type": "linear", "factor": 4.0, **THETA},
    "llama3": {"rope_type": "llama3", **LLAMA3, **THETA},
    "yarn": {"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 64, **THETA},
}


@pytest.mark.parametrize("kind", ROPES)
def test_scaled_positions_are_those_of_transformers(kind: str, tmp_path: Path) -> None:
    """By log-probabilities over 240 tokens; those of positions that are not scaled differ by far more."""
    folder = save_exportable(tmp_path / "student", rope_parameters=ROPES[kind])
    merged, own = make(student.read(folder), tmp_path / "out", ["gguf_f16"])
    reference = read_engine(merged)
    ids = np.random.default_rng(0).integers(10, 200, 240).tolist()
    right = reference.score(ids, 1, 1).given
    with open_variant(own)[1] as engine:
        np.testing.assert_allclose(engine.score(ids, 200, 1).given, right[199:], atol=0.05)
    plain = read_engine(save_exportable(tmp_path / "plain", rope_parameters={"rope_type": "default", **THETA}))
    assert np.abs(plain.score(ids, 1, 1).given - right)[199:].max() > 0.5


@pytest.mark.parametrize(
    ("entries", "words"),
    [
        ({"beta_fast": 16.0}, "beta_fast=16.0"),
        ({"attention_factor": 1.5}, "attention_factor=1.5"),
        ({"mscale": 0.7}, "mscale=0.7"),
    ],
)
def test_settings_of_yarn_that_no_file_holds_are_refused(entries: dict[str, float], words: str, tmp_path: Path) -> None:
    usual = {"beta_fast": 32.0, "beta_slow": 1.0, "truncate": True}
    own = student.read(save_exportable(tmp_path / "usual", rope_parameters={**ROPES["yarn"], **usual}))
    check_architecture(own.config, own.tokenizer)
    other = student.read(save_exportable(tmp_path / "other", rope_parameters={**ROPES["yarn"], **entries}))
    with pytest.raises(UserError, match=f"has {words} in its config.json, of which no GGUF file is written"):
        check_architecture(other.config, other.tokenizer)
