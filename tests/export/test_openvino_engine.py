"""The engine on an IR whose answers are known in float64: its state, the logits that it asks for, and where a text ends."""

from pathlib import Path

import numpy as np
import pytest
from stateful_ir import expected_logits, save_folder

pytest.importorskip("openvino_tokenizers", reason="pip install 'mangakd[openvino]'")

from mangakd.export.language import openvino_tokenizer
from mangakd.export.language.openvino_engine import keep_last, open_engine
from mangakd.export.language.openvino_layout import KEPT, MODEL, settings
from mangakd.export.language.torch_engine import read_tokenizers
from mangakd.export.language.weight_groups import WHOLE_ROW

IDS = [17, 4, 99, 4, 230, 61, 8]
RUNTIME = {"threads": 1, **settings(None), "KV_CACHE_PRECISION": "f32"}


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, int]:
    folder = tmp_path_factory.mktemp("ir")
    vocabulary = save_folder(folder)
    openvino_tokenizer.save(folder, folder, 64)
    return folder, vocabulary


def log_probs(ids: list[int], vocabulary: int) -> np.ndarray:
    logits = expected_logits(ids, vocabulary)
    return (
        logits
        - np.log(np.exp(logits - logits.max(1, keepdims=True)).sum(1, keepdims=True))
        - logits.max(1, keepdims=True)
    )


def test_scores_are_those_of_the_whole_vocabulary(made: tuple[Path, int]) -> None:
    folder, vocabulary = made
    engine = open_engine(folder / MODEL, RUNTIME, 64)
    right = log_probs(IDS, vocabulary)[2:-1]  # of the tokens 3 … 6
    for _ in range(2):  # the state of the first question is gone
        scores = engine.score(IDS, 3, 5)
        np.testing.assert_allclose(scores.given, right[range(4), IDS[3:]], atol=1e-3)
        assert scores.top.tolist() == np.argsort(-right, 1)[:, :5].tolist()
        np.testing.assert_allclose(scores.top_log_probs, -np.sort(-right, 1)[:, :5], atol=1e-3)
    assert engine.score(IDS, 1, 10**6).top.shape == (6, vocabulary)


def test_greedy_continues_token_by_token(made: tuple[Path, int]) -> None:
    folder, vocabulary = made
    engine = open_engine(folder / MODEL, RUNTIME, 64)
    expected, ids = [], list(IDS)
    for _ in range(6):
        expected.append(int(expected_logits(ids, vocabulary)[-1].argmax()))
        ids.append(expected[-1])
    assert engine.greedy(IDS, 6, False) == expected == engine.greedy(IDS, 6, False)
    engine.stops = frozenset(expected[2:3])
    place = expected.index(expected[2])
    assert engine.greedy(IDS, 6) == expected[: place + 1]


def test_only_the_last_logits_are_computed(made: tuple[Path, int]) -> None:
    import openvino as ov

    model = keep_last(ov.Core().read_model(made[0] / MODEL))
    assert KEPT in [each.get_any_name() for each in model.inputs]
    heads = [node for node in model.get_ordered_ops() if node.get_type_name() == "Slice"]
    assert heads[-1].output(0).get_target_inputs().pop().get_node().get_type_name() == "MatMul"  # in front of the head


def test_ids_and_conversations_are_the_tokenizers(made: tuple[Path, int]) -> None:
    engine = open_engine(made[0] / MODEL, RUNTIME, 64)
    special, plain = read_tokenizers(made[0])
    texts = ["<|im_start|>user\nhi<|im_end|>", "a\0", "\0b", "", "Größe 42 😀"]
    assert engine.ids(texts, True) == [special(text)["input_ids"] for text in texts]
    assert engine.ids(texts, False) == [plain(text, add_special_tokens=False)["input_ids"] for text in texts]
    chat = [{"role": "user", "content": "hi"}]
    assert engine.chat([("user", "hi")]) == special.apply_chat_template(
        chat, add_generation_prompt=True, return_dict=False
    )
    assert engine.stops == {special.eos_token_id}


def test_activations_of_whole_rows_are_quantised_in_groups_of_32() -> None:
    assert settings(WHOLE_ROW)["DYNAMIC_QUANTIZATION_GROUP_SIZE"] == 32
    assert settings(104)["DYNAMIC_QUANTIZATION_GROUP_SIZE"] == settings(None)["DYNAMIC_QUANTIZATION_GROUP_SIZE"] == 0
