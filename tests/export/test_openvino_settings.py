"""Group sizes by hand, the converter's refusals, and what NNCF makes of an IR with them."""

import sys
from collections import Counter
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from stateful_ir import D, save_folder, save_ir
from tiny_language import CONFIGS
from transformers import LlamaConfig, Qwen3Config

from mangakd.core.errors import UserError
from mangakd.export.language import compressed, openvino_model
from mangakd.export.language.library import Library
from mangakd.export.language.openvino_layout import KEPT, MODEL, inputs
from mangakd.export.language.variants import VARIANTS, check_installed, find_variants
from mangakd.export.language.weight_groups import WHOLE_ROW, activation_group, row_lengths, weight_group


@pytest.mark.parametrize(
    ("rows", "weights", "activations"),
    [
        ({2048, 8192}, 128, 32),
        ({576, 1536}, 96, 32),  # SmolLM2: 64 divides, too, and 128 does not
        ({896, 4864}, 128, 32),  # Qwen2.5-0.5B
        ({48, 96}, 48, 16),
        ({312, 1248}, 104, 0),  # 16 does not divide 312
        ({16, 24}, WHOLE_ROW, 32),
    ],
)
def test_groups_divide_all_rows(rows: set[int], weights: int, activations: int) -> None:
    assert weight_group(rows) == weights
    assert activation_group(weights) == activations


def test_groups_of_vllm_are_those_of_its_kernels() -> None:
    assert weight_group({576, 1536}, compressed.GROUPS) == 64
    assert weight_group({312, 1248}, compressed.GROUPS) == WHOLE_ROW


def test_rows_are_those_of_attention_and_feed_forward() -> None:
    sizes = {"hidden_size": 64, "intermediate_size": 96, "num_attention_heads": 4}
    assert row_lengths(LlamaConfig(**sizes)) == {64, 96}
    assert row_lengths(Qwen3Config(**sizes, head_dim=32)) == {64, 96, 128}


def test_inputs_stand_behind_the_state() -> None:
    own = inputs(["input_ids", "attention_mask", "position_ids", "beam_idx", KEPT], [7, 8], past=3, last=2)
    assert {name: array.tolist() for name, array in own.items()} == {
        "input_ids": [[7, 8]], "attention_mask": [[1] * 5], "position_ids": [[3, 4]], "beam_idx": [0], KEPT: [2],
    }  # fmt: skip
    assert inputs(["input_ids"], [7]).keys() == {"input_ids"}


def test_settings_in_the_table_are_those_of_the_students_rows() -> None:
    config = LlamaConfig(hidden_size=312, intermediate_size=1248, num_attention_heads=12)
    groups = {
        name: row.runtime(config)["DYNAMIC_QUANTIZATION_GROUP_SIZE"]
        for name, row in VARIANTS.items()
        if "openvino" in name
    }
    assert groups == {"openvino_fp16": 0, "openvino_int8": 32, "openvino_int4": 0}


@pytest.mark.parametrize("check", [openvino_model.check, compressed.check])
def test_other_architectures_are_refused(check: Any) -> None:
    with pytest.raises(UserError, match=r"architecture gpt2 .*Remove (openvino_lm|vllm) from export"):
        check(CONFIGS["gpt2"](), None)
    check(CONFIGS["llama"](), None)


def test_a_missing_library_is_refused_with_both_ways_to_install_it(monkeypatch: pytest.MonkeyPatch) -> None:
    library = Library("no_such.module", "no-such", "MANGAKD_NO_SUCH_PYTHON", "such", "'such>=2'")
    with pytest.raises(
        UserError, match=r"pip install 'mangakd\[such\]'.*pip install 'such>=2'; export MANGAKD_NO_SUCH_PYTHON="
    ):
        library.python()
    monkeypatch.setenv(library.variable, "/nowhere/python")
    with pytest.raises(
        UserError, match=r"MANGAKD_NO_SUCH_PYTHON=/nowhere/python cannot be used: it cannot be started \(No such"
    ):
        library.python()
    monkeypatch.setenv(library.variable, sys.executable)
    with pytest.raises(UserError, match=r"no_such\.module is not installed there\. Install no-such there with: "):
        library.python()


def test_variants_ask_for_their_library(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(openvino_model.OPTIMUM.variable, "/nowhere/python")
    for package in openvino_model.NNCF:
        pytest.importorskip(package)
    with pytest.raises(UserError, match="MANGAKD_OPTIMUM_PYTHON"):
        check_installed(find_variants(["openvino_int4"]))


def test_a_program_of_a_library_answers_or_fails_with_its_last_line(tmp_path: Path) -> None:
    library, program = Library("json", "json", "MANGAKD_JSON_PYTHON", "", ""), tmp_path / "program.py"
    program.write_text(
        "import json, sys\nprint('noise')\nprint(json.dumps({'twice': 2 * json.load(open(sys.argv[1]))['n']}))"
    )
    assert library.run(program, {"n": 21}) == {"twice": 42}
    program.write_text("raise ValueError('no such architecture')")
    with pytest.raises(RuntimeError, match="json: ValueError: no such architecture"):
        library.run(program, {})


def test_vllm_needs_training_texts() -> None:
    tokenizer = lambda text, add_special_tokens: {"input_ids": [1, 2]}  # noqa: E731
    job: Any = SimpleNamespace(student=SimpleNamespace(tokenizer=tokenizer), texts=["a"] * 15)
    with pytest.raises(UserError, match="needs 16; there are 15"):
        compressed.save(job)


def test_int4_has_groups_and_a_tokenizer_that_cuts(tmp_path: Path) -> None:
    """The IR is one by hand, and stands where optimum-intel's would: NNCF and the rest of the folder are real."""
    pytest.importorskip("nncf")
    ov = pytest.importorskip("openvino")
    merged, work, folder = (tmp_path / name for name in ("merged", "work", "openvino_int4"))
    vocabulary = save_folder(merged)
    save_ir(work / "openvino", vocabulary)
    folder.mkdir()
    from transformers import AutoTokenizer

    config = LlamaConfig(hidden_size=D, intermediate_size=2 * D, num_attention_heads=4)
    student = SimpleNamespace(config=config, context=64, tokenizer=AutoTokenizer.from_pretrained(merged))
    job: Any = SimpleNamespace(
        student=student,
        merged=merged,
        work=work,
        folder=folder,
        texts=["Where is my order?"] * 40,
        facts={"optimum": {"v": "1"}},
    )
    assert openvino_model.int4(job) == {"converter": {"v": "1"}, "group_size": 48, "calibration_texts": 32}
    model = ov.Core().read_model(folder / MODEL)
    assert len(model.get_sinks()) == 1  # stateful
    kinds = Counter(
        node.get_element_type().get_type_name() for node in model.get_ops() if node.get_type_name() == "Constant"
    )
    assert kinds["u4"] and kinds["u8"] and not any(
        node.get_element_type() == ov.Type.f32 and np.prod(node.get_output_shape(0)) >= D * D
        for node in model.get_ops() if node.get_type_name() == "Constant"
    )  # fmt: skip
    assert {"openvino_tokenizer.xml", "openvino_detokenizer.xml", "tokenizer.json", "chat_template.jinja"} <= {
        file.name for file in folder.iterdir()
    }


def test_a_tokenizer_that_does_not_cut_is_refused(tmp_path: Path) -> None:
    ov = pytest.importorskip("openvino")
    tokenizers = pytest.importorskip("openvino_tokenizers")
    from transformers import AutoTokenizer

    from mangakd.export.language.openvino_tokenizer import check_cut

    save_folder(tmp_path)
    tokenizer = AutoTokenizer.from_pretrained(tmp_path, model_max_length=32)
    check_cut(ov.compile_model(tokenizers.convert_tokenizer(tokenizer, truncation=True), "CPU"), tokenizer)
    with pytest.raises(UserError, match="cuts to 32"):
        check_cut(ov.compile_model(tokenizers.convert_tokenizer(tokenizer), "CPU"), tokenizer)
