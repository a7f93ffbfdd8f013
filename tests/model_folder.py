"""A small model folder, changed as other tools would have written it, and the labels that are read from it."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from contract.tiny_models import LABELS, config, model, tokenizer
from safetensors.torch import load_file, save_file

from mangakd.models import load

KEY = "teacher.path"
COUNT = len(LABELS)


def fine_tuned(folder: Path) -> Path:
    """A BERT that is fine-tuned for LABELS."""
    model(config("bert", layers=1)).save_pretrained(folder)
    tokenizer().save_pretrained(folder)
    return folder


def change(folder: Path, **entries: Any) -> Path:
    """Entries of config.json; None takes one out."""
    file = folder / "config.json"
    content = json.loads(file.read_text()) | entries
    file.write_text(json.dumps({key: value for key, value in content.items() if value is not None}))
    return folder


def labels(folder: Path) -> tuple[str, ...]:
    found = load.trained_classifier(str(folder), KEY)
    assert found is not None
    return tuple(found.config.id2label[i] for i in range(found.config.num_labels))


def renamed(folder: Path, rename: Callable[[str], str | None]) -> None:
    """Other names of the weights; None leaves one out."""
    file = folder / "model.safetensors"
    weights = {rename(name): tensor for name, tensor in load_file(file).items()}
    save_file({name: tensor for name, tensor in weights.items() if name}, file, metadata={"format": "pt"})
