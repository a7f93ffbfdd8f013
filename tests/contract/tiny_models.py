"""Tiny models, tokenizers and data that several test files share: random weights, no network, milliseconds each.

Weights are blown up (`SCALE`): at the usual 0.02 all attention maps are uniform and all logits equal, and nothing would show.
"""

from collections.abc import Callable
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from tokenizers import Tokenizer
from tokenizers.models import WordLevel
from tokenizers.normalizers import BertNormalizer
from tokenizers.pre_tokenizers import BertPreTokenizer
from tokenizers.processors import TemplateProcessing
from torch import Tensor
from transformers import (
    AlbertConfig,
    BertConfig,
    DebertaV2Config,
    DistilBertConfig,
    ElectraConfig,
    ModernBertConfig,
    MPNetConfig,
    PreTrainedTokenizerFast,
    RobertaConfig,
)

from mangakd.core.spec import Head, ModelSpec
from mangakd.data.encoded import EncodedSplit, Sides
from mangakd.data.tokenising import tokenise
from mangakd.models.encoder import Encoder
from mangakd.models.heads import auto, entries, own, states_head
from mangakd.models.late import Late, mark
from mangakd.models.load import vocabulary_digest
from mangakd.tasks.classification.encode import labelled
from mangakd.teachers.options import Member, TeacherContext

VOCAB, SCALE = 130, 12
LABELS = ("cancel", "order", "refund", "status", "track")
HEAD, SEVERAL, SCORE = Head.of_labels(LABELS), Head.of_labels(LABELS, several=True), Head("score", 1, ("quality",))
VECTOR = Head("vector", 0)
SPECIAL = ("[PAD]", "[UNK]", "[CLS]", "[SEP]")
WORDS = [f"w{i}" for i in range(VOCAB - len(SPECIAL))]
_BERT = {"num_attention_heads": 2, "intermediate_size": 24}
_IDS = {"vocab_size": VOCAB, "pad_token_id": 0}


def config(kind: str, layers: int = 3, hidden: int = 16, dropout: float = 0.0, attention_dropout: float = 0.0) -> Any:
    """A config of one architecture; its dropouts are as given and nothing else."""
    bert = {**_IDS, **_BERT, "num_hidden_layers": layers, "hidden_size": hidden}
    drop = {
        "hidden_dropout_prob": dropout,
        "attention_probs_dropout_prob": attention_dropout,
        "classifier_dropout": 0.0,
    }
    modern = {"embedding_dropout": dropout, "mlp_dropout": dropout, "attention_dropout": attention_dropout}
    marks = {"cls_token_id": 2, "sep_token_id": 3, "bos_token_id": 2, "eos_token_id": 3}
    made: dict[str, Callable[[], Any]] = {
        "bert": lambda: BertConfig(**bert, **drop),
        "roberta": lambda: RobertaConfig(**bert, **drop, type_vocab_size=1),
        "electra": lambda: ElectraConfig(**bert, **drop, embedding_size=8),
        "distilbert": lambda: DistilBertConfig(
            **_IDS, dim=hidden, n_layers=layers, n_heads=2, hidden_dim=24, seq_classif_dropout=0.0,
            dropout=dropout, attention_dropout=attention_dropout,
        ),
        # Local layers see 2 tokens to each side; every second layer is global.
        "modernbert": lambda: ModernBertConfig(
            **bert, **modern, **marks, local_attention=4, global_attn_every_n_layers=2
        ),
        "deberta-v2": lambda: DebertaV2Config(**bert, **drop, relative_attention=True, pos_att_type=["p2c", "c2p"]),
        "albert": lambda: AlbertConfig(**bert, **drop, classifier_dropout_prob=0.0, embedding_size=8),
        "mpnet": lambda: MPNetConfig(**bert, **drop),
    }  # fmt: skip
    return made[kind]()


def model(settings: Any, head: Head = HEAD, seed: int = 0) -> Any:
    """A model with this head and random weights, in eval mode."""
    torch.manual_seed(seed)
    settings.update(entries(head))
    built = auto(head.kind, settings).from_config(settings).eval()
    with torch.no_grad():
        for parameter in built.parameters():
            if parameter.dim() > 1:
                parameter.mul_(SCALE)
        last = [module for module in built.modules() if isinstance(module, torch.nn.Linear)][-1]
        last.weight.mul_(4)  # type: ignore[operator]
    return built


def encoder(settings: Any, head: Head = HEAD, seed: int = 0) -> Encoder:
    built = model(settings, head, seed)
    spec = ModelSpec.from_config(built.config, f"{settings.model_type} {seed}", own(head, built.config))
    return Encoder(built, spec, states_head(head.kind, built.config))


def inputs(lengths: tuple[int, ...] = (9, 6, 3), width: int | None = None, left: bool = False) -> dict[str, Tensor]:
    """The same random tokens for equal `lengths`, padded to `width` on the right, or on the left."""
    width = width or max(lengths)
    rng = np.random.default_rng(0)
    ids, mask = torch.zeros(len(lengths), width, dtype=torch.long), torch.zeros(len(lengths), width, dtype=torch.long)
    for row, length in enumerate(lengths):
        here = slice(width - length, width) if left else slice(0, length)
        ids[row, here] = torch.from_numpy(rng.integers(len(SPECIAL), VOCAB, length))
        mask[row, here] = 1
    return {"input_ids": ids, "attention_mask": mask}


def tokenizer(words: list[str] = WORDS, closed: bool = True) -> PreTrainedTokenizerFast:
    """Whole words, BERT's normalisation; `closed`: [CLS] text [SEP]."""
    vocabulary = {token: i for i, token in enumerate([*SPECIAL, *words])}
    made = Tokenizer(WordLevel(vocabulary, unk_token="[UNK]"))
    made.normalizer, made.pre_tokenizer = BertNormalizer(), BertPreTokenizer()
    if closed:
        made.post_processor = TemplateProcessing("[CLS] $A [SEP]", special_tokens=[("[CLS]", 2), ("[SEP]", 3)])
    names = dict(zip(("pad_token", "unk_token", "cls_token", "sep_token"), SPECIAL, strict=True))
    return PreTrainedTokenizerFast(tokenizer_object=made, **names)


def texts(count: int, seed: int = 0) -> list[str]:
    rng = np.random.default_rng(seed)
    return [" ".join(rng.choice(WORDS, rng.integers(1, 16))) for _ in range(count)]


def split(count: int, cache: Path, seed: int = 0, head: Head = HEAD, reader: Any = None) -> EncodedSplit:
    tokens = tokenise(texts(count, seed), reader or tokenizer(), 16, cache)
    rng = np.random.default_rng(seed)
    if head.several:
        labels = rng.integers(0, 2, (count, head.outputs)).astype("f4")
    else:
        labels = rng.integers(0, head.outputs, count) if head.kind == "labels" else rng.normal(size=count).astype("f4")
    return labelled(Sides(tokens, tokens, 0, 0), labels)


class Teachers:
    """`context.load` for tests: member (path, seed) → a fine-tuned encoder, always the same. Counts live forwards.

    Odd seeds have their labels in reverse: everything that is put together must be aligned by name.
    """

    def __init__(self, head: Head = HEAD, late: Late | None = None) -> None:
        self.head, self.late = head, late
        self.forwards = 0
        self.loaded: list[Encoder] = []

    def __call__(self, member: Member) -> Encoder:
        head = replace(self.head, names=self.head.names[::-1] if member.seed % 2 else self.head.names)
        kind = "bert" if member.path == "bert" else "distilbert"
        made = encoder(mark(config(kind, layers=2), self.late), head, member.seed)
        digest = vocabulary_digest(tokenizer())
        made.spec = replace(made.spec, name=f"{member.path} {member.seed}", vocabulary=digest)
        made.model.register_forward_hook(self._count)
        self.loaded.append(made)
        return made

    def _count(self, *_: Any) -> None:
        self.forwards += 1


def context(cache: Path, load: Teachers, rows: int = 40, batch_size: int = 8) -> TeacherContext:
    splits = {
        name: split(count, cache / "tokens", seed, load.head)
        for seed, (name, count) in enumerate({"train": rows, "validation": 20, "test": 9}.items())
    }
    return TeacherContext(load.head, load, splits, cache, torch.device("cpu"), batch_size, silent)


@contextmanager
def silent(title: str, total: int) -> Any:
    yield lambda rows: None
