"""A world that trains in a second: a tiny BERT, random tokens, and a `Fit` over them."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import torch
from transformers import BertConfig

from mangakd.core.spec import Head, ModelSpec
from mangakd.data.encoded import EncodedSplit, Sides
from mangakd.data.tokens import Tokens
from mangakd.losses.base import LossCallback
from mangakd.losses.loss_set import LossSet
from mangakd.models.encoder import Encoder
from mangakd.models.heads import auto, entries, states_head
from mangakd.models.late import Late, mark
from mangakd.tasks.classification.encode import labelled
from mangakd.tasks.classification.task import Classification
from mangakd.training.fit import Fit
from mangakd.training.hardware import Hardware
from mangakd.training.optim import Optim

LABELS = ("a", "b", "c")
HEAD = Head.of_labels(LABELS)


def encoder(
    seed: int, layers: int = 2, hidden: int = 16, dropout: float = 0.1, head: Head = HEAD, late: Late | None = None
) -> Encoder:
    torch.manual_seed(seed)
    config = BertConfig(
        vocab_size=50, hidden_size=hidden, num_hidden_layers=layers, num_attention_heads=4, intermediate_size=32,
        max_position_embeddings=32, hidden_dropout_prob=dropout, attention_probs_dropout_prob=dropout,
    )  # fmt: skip
    config.update(entries(head))
    model = auto(head.kind, mark(config, late)).from_config(config)
    return Encoder(model, ModelSpec.from_config(model.config, "tiny", head, "v"), states_head(head.kind, config))


def split(rows: int, seed: int) -> EncodedSplit:
    rng = np.random.default_rng(seed)
    lengths = rng.integers(3, 12, rows)
    ids = rng.integers(1, 50, lengths.sum()).astype(np.int32)
    tokens = Tokens(ids, np.cumsum(lengths) - lengths, lengths, np.arange(rows) + seed * 10_000)
    return labelled(Sides(tokens, tokens, 0, 0), rng.integers(0, 3, rows))


def plan(folder: Path, **changes: Any) -> Fit:
    parts = SimpleNamespace(epochs=3, workers=0, resume=None, optim=Optim(lr=1e-3), rows=100, hardware=None)
    parts.__dict__.update(changes)
    hardware = parts.hardware or Hardware(accelerator="cpu", batch_size=8, workers=parts.workers)
    return Fit(
        "tiny", folder, Classification(), split(parts.rows, 1), split(30, 2), parts.optim,
        hardware, seed=3,
        trainer={"max_epochs": parts.epochs, "log_every_n_steps": 1}, resume=parts.resume,
    )  # fmt: skip


def bound(student: Encoder, teacher: Encoder | None, **losses: LossCallback) -> LossSet:
    torch.manual_seed(5)
    found = LossSet(losses)
    found.bind(student.spec, teacher.spec if teacher else None)
    return found
