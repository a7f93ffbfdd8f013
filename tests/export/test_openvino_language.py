"""OpenVINO variants of a tiny language model, converted by optimum-intel: ids, greedy texts and log-probabilities of the folder.

optimum-intel is an environment of its own: `make test-optimum` builds it and runs this.
"""

from pathlib import Path

import numpy as np
import pytest
from language_folder import save_language_model

from mangakd.core.errors import UserError

pytest.importorskip("openvino_tokenizers", reason="pip install 'mangakd[openvino]'")
pytest.importorskip("nncf", reason="pip install 'mangakd[openvino]'")

from mangakd.export.language import student as students
from mangakd.export.language.openvino_model import OPTIMUM
from mangakd.export.language.torch_engine import read_engine
from mangakd.export.language.variants import make, open_variant
from mangakd.runtime.language_manifest import read

try:
    OPTIMUM.python()
except UserError as error:
    pytest.skip(f"needs optimum-intel: make test-optimum ({error})", allow_module_level=True)

NAMES = ["openvino_fp16", "openvino_int8", "openvino_int4"]
IDS = [17, 4, 99, 4, 230, 61, 8, 120, 33]
TEXTS = ["Where is my order?", "It costs 12 euro.", "def main():\n    return 1"] * 8


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("openvino_language")
    make(students.read(save_language_model(root / "student")), root / "export", NAMES, TEXTS)
    return root / "export"


@pytest.mark.parametrize(("name", "within"), [*zip(NAMES, (1e-2, 0.2, 4.0), strict=True)])
def test_log_probabilities_are_those_of_the_merged_folder(made: Path, name: str, within: float) -> None:
    right = read_engine(made / "merged").score(IDS, 1, 10).given
    manifest, engine = open_variant(made / name)
    with engine:
        own = engine.score(IDS, 1, 10).given
    assert np.abs(own - right).max() <= within
    assert np.abs(own - right).max() > 0  # quantised, or rounded to fp16
    assert manifest.runtime["INFERENCE_PRECISION_HINT"] == "f32"


def test_what_was_checked_and_chosen_stands_in_the_manifest(made: Path) -> None:
    fp16, int8, int4 = (read(made / name).content for name in NAMES)
    assert fp16["parity"]["equal"] == fp16["parity"]["prompts"] == 20
    assert fp16["parity"]["texts"] >= 200
    assert fp16["recipe"].keys() == {"converter"}
    assert int8["recipe"]["group_size"] == int4["recipe"]["group_size"] == -1  # rows of 16 and 24 have no common group
    assert int4["recipe"]["calibration_texts"] == len(TEXTS)
    assert int8["runtime"]["DYNAMIC_QUANTIZATION_GROUP_SIZE"] == 32


def test_openvino_genai_writes_the_same_text(made: Path) -> None:
    genai = pytest.importorskip("openvino_genai", reason="pip install openvino-genai")
    import openvino as ov

    prompt, own = "Where is my order?", read_engine(made / "merged")
    pipeline = genai.LLMPipeline(str(made / "openvino_fp16"), "CPU", INFERENCE_PRECISION_HINT="f32")
    tokenizer, ids = pipeline.get_tokenizer(), own.ids([prompt], True)[0]
    assert tokenizer.encode(prompt).input_ids.data[0].tolist() == ids
    settings = genai.GenerationConfig(max_new_tokens=12, do_sample=False, ignore_eos=True)
    given = genai.TokenizedInputs(ov.Tensor(np.array([ids])), ov.Tensor(np.ones((1, len(ids)), dtype=np.int64)))
    assert pipeline.generate(given, settings).tokens[0] == own.greedy(ids, 12, False)
    text = tokenizer.apply_chat_template([{"role": "user", "content": "hi"}], add_generation_prompt=True)
    assert tokenizer.encode(text, add_special_tokens=False).input_ids.data[0].tolist() == own.chat([("user", "hi")])
