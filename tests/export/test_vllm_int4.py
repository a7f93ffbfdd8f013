"""INT4 for vLLM of a tiny language model, by llm-compressor, loaded back by transformers.

llm-compressor is an environment of its own: `make test-llm-compressor` builds it and runs this.
"""

import json
from pathlib import Path

import numpy as np
import pytest
from language_folder import save_language_model
from safetensors import safe_open

from mangakd.core.errors import UserError

pytest.importorskip("compressed_tensors", reason="pip install compressed-tensors")

from mangakd.export.language import student as students
from mangakd.export.language.compressed import LLM_COMPRESSOR
from mangakd.export.language.torch_engine import read_engine
from mangakd.export.language.variants import make, open_variant

try:
    LLM_COMPRESSOR.python()
except UserError as error:
    pytest.skip(f"needs llm-compressor: make test-llm-compressor ({error})", allow_module_level=True)

IDS = [17, 4, 99, 4, 230, 61, 8, 120, 33]


def test_the_folder_is_packed_and_loads_back(tmp_path: Path) -> None:
    texts = [f"Where is my order {i}? It costs {3 * i} euro." for i in range(24)]
    merged, folder = make(
        students.read(save_language_model(tmp_path / "student")), tmp_path / "export", ["vllm_int4"], texts
    )
    right = read_engine(merged).score(IDS, 1, 10).given
    manifest, engine = open_variant(folder)
    with engine:
        own = engine.score(IDS, 1, 10).given
    assert 0 < np.abs(own - right).max() <= 4
    config = json.loads((folder / "config.json").read_text())
    assert config["quantization_config"]["format"] == "pack-quantized"
    assert config["quantization_config"]["config_groups"]["group_0"]["weights"]["num_bits"] == 4
    assert manifest.content["recipe"]["dtype"] == "bfloat16"  # of a student in fp32: vLLM computes in 16 bits
    with safe_open(folder / "model.safetensors", "np") as file:
        names = set(file.keys())
    assert "model.layers.0.self_attn.q_proj.weight_packed" in names
    assert "model.layers.0.self_attn.q_proj.weight" not in names
