"""The architectures that people bring, small and random, each with a tokenizer of its family's kind.

A model folder is as `save_pretrained` writes it. Weights are blown up, so that logits differ between texts.
"""

from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers
from transformers import AutoConfig, AutoModelForSequenceClassification, PreTrainedTokenizerFast

from mangakd.models.load import head_options, quiet

MARKS = ("<s>", "<pad>", "</s>", "<unk>", "<mask>")  # ids 0 to 4, RoBERTa's order
IDS = {"bos_token_id": 0, "pad_token_id": 1, "eos_token_id": 2, "cls_token_id": 0, "sep_token_id": 2}
SIZES = {
    "hidden_size": 16,
    "num_hidden_layers": 4,
    "num_attention_heads": 2,
    "intermediate_size": 24,
    "max_position_embeddings": 66,
}


@dataclass(frozen=True)
class Architecture:
    """sizes: what differs from `SIZES`. reader: the kind of tokenizer. closed: whether it puts marks around a text."""

    kind: str
    reader: str = "wordpiece"
    sizes: dict[str, Any] = field(default_factory=dict)
    closed: bool = True


BART = {
    "d_model": 16, "encoder_layers": 2, "decoder_layers": 2, "encoder_attention_heads": 2, "decoder_attention_heads": 2,
    "encoder_ffn_dim": 24, "decoder_ffn_dim": 24, "decoder_start_token_id": 2, "forced_eos_token_id": None,
}  # fmt: skip
RELATIVE = {
    "relative_attention": True,
    "pos_att_type": ["p2c", "c2p"],
    "position_buckets": 8,
    "norm_rel_ebd": "layer_norm",
}
ARCHITECTURES = {
    "bert": Architecture("bert"),
    "distilbert": Architecture("distilbert", sizes={"dim": 16, "n_layers": 4, "n_heads": 2, "hidden_dim": 24}),
    "roberta": Architecture("roberta", "bytes", {"type_vocab_size": 1}),
    "xlm-r": Architecture("xlm-roberta", "unigram", {"type_vocab_size": 1}),
    "electra": Architecture("electra", sizes={"embedding_size": 8}),
    "albert": Architecture("albert", "unigram", {"embedding_size": 8}),
    "deberta-v2": Architecture("deberta-v2", "unigram", {"relative_attention": True, "pos_att_type": ["p2c", "c2p"]}),
    "deberta-v3": Architecture("deberta-v2", "unigram", {**RELATIVE, "share_att_key": True, "position_biased_input": False, "type_vocab_size": 0}),
    "mpnet": Architecture("mpnet"),
    "modernbert": Architecture("modernbert", "bytes", {"local_attention": 8, "global_attn_every_n_layers": 3}),
    "gpt2": Architecture("gpt2", "bytes", {"n_embd": 16, "n_layer": 4, "n_head": 2, "n_inner": 24, "n_positions": 66}, closed=False),
    "llama": Architecture("llama", "bytes", {"num_key_value_heads": 1, "head_dim": 8}, closed=False),
    "bart": Architecture("bart", "bytes", BART),
}  # fmt: skip


def save(name: str, folder: Path, labels: tuple[str, ...], texts: Iterable[str], seed: int = 0) -> Path:
    """A classifier of `labels` with a tokenizer that was trained on `texts`."""
    shape = ARCHITECTURES[name]
    reader = tokenizer(shape, texts)
    alike = AutoConfig.for_model(shape.kind)
    sizes = (
        {key: value for key, value in {**SIZES, **IDS}.items() if hasattr(alike, key)}
        if "d_model" not in shape.sizes
        else {**IDS, "max_position_embeddings": 66}
    )
    if shape.kind in ("gpt2", "distilbert"):
        sizes = {
            k: v
            for k, v in sizes.items()
            if k not in ("hidden_size", "num_hidden_layers", "num_attention_heads", "intermediate_size")
        }
    config = AutoConfig.for_model(shape.kind, **{**sizes, **shape.sizes, "vocab_size": len(reader)})
    config.update(head_options(labels, "single_label"))
    torch.manual_seed(seed)
    model = AutoModelForSequenceClassification.from_config(config)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.dim() > 1:
                parameter.mul_(6)
    with quiet():
        model.save_pretrained(folder)
        reader.save_pretrained(folder)
    return folder


def tokenizer(shape: Architecture, texts: Iterable[str]) -> PreTrainedTokenizerFast:
    known: dict[str, Any] = {"special_tokens": list(MARKS), "show_progress": False, "vocab_size": 300}
    if shape.reader == "wordpiece":
        made = Tokenizer(models.WordPiece(unk_token="<unk>"))
        made.normalizer, made.pre_tokenizer = normalizers.BertNormalizer(), pre_tokenizers.BertPreTokenizer()
        trainer: Any = trainers.WordPieceTrainer(**known)
    elif shape.reader == "bytes":
        made = Tokenizer(models.BPE())
        made.pre_tokenizer, made.decoder = pre_tokenizers.ByteLevel(add_prefix_space=False), decoders.ByteLevel()
        trainer = trainers.BpeTrainer(initial_alphabet=pre_tokenizers.ByteLevel.alphabet(), **known)
    else:
        made = Tokenizer(models.Unigram())
        texts = [*texts, *(" ".join(text.split()[-2:]) for text in texts)] if False else texts
        made.pre_tokenizer = pre_tokenizers.Metaspace()
        trainer = trainers.UnigramTrainer(unk_token="<unk>", **known)
    made.train_from_iterator(texts, trainer)
    if shape.closed:
        made.post_processor = processors.TemplateProcessing("<s> $A </s>", special_tokens=[("<s>", 0), ("</s>", 2)])
    names = dict(zip(("bos_token", "pad_token", "eos_token", "unk_token", "mask_token"), MARKS, strict=True))
    return PreTrainedTokenizerFast(tokenizer_object=made, cls_token="<s>", sep_token="</s>", **names)


LABELS = ("order", "refund", "shipping")
_THINGS = [
    "blue teapot",
    "woollen jumper",
    "garden chair",
    "camping stove",
    "leather wallet",
    "bread knife",
    "desk lamp",
    "winter coat",
    "phone cover",
    "kitchen scale",
    "yoga mat",
    "cotton shirt",
    "hiking boots",
    "coffee grinder",
    "picture frame",
    "travel pillow",
]
_ASKS = {
    "order": "can I still order the {}", "refund": "give me my money back for the {}", "shipping": "when will my {} arrive",
}  # fmt: skip
TEXTS = [(_ASKS[label].format(thing), label) for thing in _THINGS for label in LABELS]
