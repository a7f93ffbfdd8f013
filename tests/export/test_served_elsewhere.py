"""A student's folder has what vLLM and text-embeddings-inference read from a local folder (docs/how-to/serving.md).

Neither server runs here. The files and keys are those of their public documentation and sources.
"""

import json
from pathlib import Path
from typing import Any

import pytest
from chat_samples import chat_tokenizer
from exported import MAX_LENGTH, student
from language_folder import save_language_model
from safetensors import safe_open
from transformers import AutoModel, AutoModelForCausalLM, AutoTokenizer

from mangakd.export.hf import save_student
from mangakd.models.pooling import Pooling, VectorHead
from mangakd.models.sentence_transformers import Settings


def read(file: Path) -> dict[str, Any]:
    return json.loads(file.read_text(encoding="utf-8"))


def tensors(folder: Path) -> set[str]:
    with safe_open(folder / "model.safetensors", "pt") as file:
        return set(file.keys())


@pytest.mark.parametrize(
    ("kind", "architecture", "prefix"),
    [("labels", "BertForSequenceClassification", "bert."), ("regression", "BertForSequenceClassification", "bert.")],
)
def test_text_embeddings_inference_reads_classifiers_and_rerankers(
    tmp_path: Path, kind: str, architecture: str, prefix: str
) -> None:
    folder = student(tmp_path / kind, kind)
    config = read(folder / "config.json")
    assert config["architectures"] == [architecture] and config["model_type"] == "bert"
    assert len(config["id2label"]) == (1 if kind == "regression" else len(config["label2id"]))
    assert read(folder / "tokenizer.json")["model"]["vocab"]
    names = tensors(folder)
    assert f"{prefix}embeddings.word_embeddings.weight" in names and "classifier.weight" in names


def test_text_embeddings_inference_reads_embeddings_with_their_pooling(tmp_path: Path) -> None:
    made = student(tmp_path / "encoder", "embedding")
    folder = tmp_path / "student"
    save_student(
        AutoModel.from_pretrained(made), AutoTokenizer.from_pretrained(made), folder, "",
        pooling=VectorHead(Pooling("mean", normalize=True)), settings=Settings(max_length=MAX_LENGTH),
    )  # fmt: skip
    pooling = read(folder / "1_Pooling" / "config.json")
    assert pooling["pooling_mode_mean_tokens"] is True and pooling["pooling_mode_cls_token"] is False
    assert read(folder / "config.json")["architectures"] == ["BertModel"]
    assert "embeddings.word_embeddings.weight" in tensors(folder)


def test_vllm_reads_a_language_model(tmp_path: Path) -> None:
    made = save_language_model(tmp_path / "made")
    folder = tmp_path / "student"
    save_student(AutoModelForCausalLM.from_pretrained(made), chat_tokenizer("chatml"), folder, "")
    config = read(folder / "config.json")
    assert config["architectures"] == ["LlamaForCausalLM"] and config["max_position_embeddings"] == 128
    assert read(folder / "generation_config.json")["eos_token_id"] == config["eos_token_id"]
    assert "model.embed_tokens.weight" in tensors(folder)
    again = AutoTokenizer.from_pretrained(folder)
    assert again.chat_template and again.apply_chat_template([{"role": "user", "content": "hi"}], tokenize=False)
