"""Tiny students of every kind, and what PyTorch answers, computed without mangakd."""

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from conftest import save_tiny
from transformers import AutoModel, AutoModelForSequenceClassification, AutoTokenizer

MAX_LENGTH = 48
CALIBRATION = [f"where is order {i}, and why {'so ' * (i % 7)}late?" for i in range(24)]
TEXTS = ["refund", "", "where is my order?", "Café 東京, 12.50 €\tplease", "a b c d e f g h i", "very long " * 60, "no"]
KINDS = ("classifier", "multi_label", "regression", "embedding", "distilbert")


def student(folder: Path, kind: str) -> Path:
    """One layer, and a head whose logits are some units apart, as a trained one's are."""
    if kind == "embedding":
        save_tiny(folder, labels=None, num_hidden_layers=1)
        return as_sentence_transformer(folder)
    sizes = {"n_layers": 1} if kind == "distilbert" else {"num_hidden_layers": 1}
    labels = ("quality",) if kind == "regression" else ("order", "refund", "shipping")
    save_tiny(folder, labels, "distilbert" if kind == "distilbert" else "bert", **sizes)
    model = AutoModelForSequenceClassification.from_pretrained(folder)
    with torch.no_grad():
        model.classifier.weight *= 30
        for name, weight in model.base_model.named_parameters():
            if weight.dim() == 2 and "embeddings" not in name:
                weight *= 3  # texts differ in their logits, not only the classes
    problems = {"multi_label": "multi_label_classification", "regression": None}
    model.config.problem_type = problems.get(kind, "single_label_classification")
    model.save_pretrained(folder)
    return folder


def as_sentence_transformer(folder: Path, mode: str = "pooling_mode_mean_tokens") -> Path:
    names = {"": "Transformer", "1_Pooling": "Pooling", "2_Normalize": "Normalize"}
    modules = [{"path": path, "type": f"sentence_transformers.models.{name}"} for path, name in names.items()]
    (folder / "modules.json").write_text(json.dumps(modules))
    (folder / "1_Pooling").mkdir()
    (folder / "1_Pooling" / "config.json").write_text(json.dumps({mode: True}))
    (folder / "sentence_bert_config.json").write_text(json.dumps({"max_seq_length": MAX_LENGTH}))
    return folder


def torch_says(folder: Path, kind: str, texts: list[str]) -> np.ndarray:
    return torch_student(folder, kind)(texts)


def torch_student(folder: Path, kind: str) -> Callable[[list[str]], np.ndarray]:
    """Texts → (N, C) or (N, D), one text at a time, so that padding can have no part in it."""
    tokenizer = AutoTokenizer.from_pretrained(folder)
    auto = AutoModel if kind == "embedding" else AutoModelForSequenceClassification
    model = auto.from_pretrained(folder).eval()

    @torch.no_grad()
    def row(text: str) -> torch.Tensor:
        found = model(**tokenizer(text, truncation=True, max_length=MAX_LENGTH, return_tensors="pt"))
        if kind != "embedding":
            return found.logits
        mean = found.last_hidden_state.mean(1)
        return mean / mean.norm()

    return lambda texts: torch.cat([row(text) for text in texts]).numpy()
