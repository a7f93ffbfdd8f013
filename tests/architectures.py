"""The architectures that people bring, small and with random weights, each with a tokenizer of its family's kind.

Weights are blown up, so that logits differ between texts. A model folder is as `save_pretrained` writes it.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers
from transformers import AutoConfig, AutoModelForSequenceClassification, PreTrainedTokenizerFast

from mangakd.core.spec import Head
from mangakd.models.heads import entries
from mangakd.models.load import quiet

LABELS = ("order", "refund", "shipping")
MARKS = ("<s>", "<pad>", "</s>", "<unk>", "<mask>")  # ids 0 to 4, in RoBERTa's order
IDS = {"bos_token_id": 0, "pad_token_id": 1, "eos_token_id": 2}
LENGTH, SCALE = 64, 6
_BERT = {"hidden_size": 16, "num_hidden_layers": 4, "num_attention_heads": 2, "intermediate_size": 24}
_LONG = {"max_position_embeddings": LENGTH + 2}  # RoBERTa and BART leave two out
_DISENTANGLED = {"relative_attention": True, "pos_att_type": ["p2c", "c2p"]}
_DISTILBERT = {"dim": 16, "n_layers": 4, "n_heads": 2, "hidden_dim": 24}
_GPT2 = {"n_embd": 16, "n_layer": 4, "n_head": 2, "n_inner": 24, "n_positions": LENGTH}
_BART = {
    "d_model": 16, "encoder_layers": 2, "decoder_layers": 2, "encoder_attention_heads": 2, "decoder_attention_heads": 2,
    "encoder_ffn_dim": 24, "decoder_ffn_dim": 24,
}  # fmt: skip
_V3 = {
    "share_att_key": True,
    "position_biased_input": False,
    "type_vocab_size": 0,
    "position_buckets": 8,
    "norm_rel_ebd": "layer_norm",
}
_THINGS = (
    "blue teapot, woollen jumper, garden chair, camping stove, leather wallet, bread knife, desk lamp, winter coat, "
    "phone cover, kitchen scale, yoga mat, cotton shirt, hiking boots, coffee grinder, picture frame, travel pillow"
)
_ASKS = {
    "order": "can I still order the {}", "refund": "give me my money back for the {}", "shipping": "when will my {} arrive",
}  # fmt: skip
TEXTS = [(ask.format(thing), label) for thing in _THINGS.split(", ") for label, ask in _ASKS.items()]


@dataclass(frozen=True)
class Architecture:
    """kind: its model_type. reader: words (WordPiece), bytes (BPE) or pieces (Unigram). marked: whether <s> text </s> is read."""

    kind: str
    reader: str
    sizes: dict[str, Any]
    marked: bool = True


ARCHITECTURES = {
    "bert": Architecture("bert", "words", _BERT | _LONG),
    "distilbert": Architecture("distilbert", "words", _DISTILBERT | _LONG),
    "roberta": Architecture("roberta", "bytes", _BERT | _LONG | {"type_vocab_size": 1}),
    "xlm-r": Architecture("xlm-roberta", "pieces", _BERT | _LONG | {"type_vocab_size": 1}),
    "electra": Architecture("electra", "words", _BERT | _LONG | {"embedding_size": 8}),
    "albert": Architecture("albert", "pieces", _BERT | _LONG | {"embedding_size": 8}),
    "deberta-v2": Architecture("deberta-v2", "pieces", _BERT | _LONG | _DISENTANGLED),
    "deberta-v3": Architecture("deberta-v2", "pieces", _BERT | _LONG | _DISENTANGLED | _V3),
    "mpnet": Architecture("mpnet", "words", _BERT | _LONG),
    # Local layers see 4 tokens to each side; every third layer is global.
    "modernbert": Architecture("modernbert", "bytes", _BERT | {"local_attention": 8, "cls_token_id": 0, "sep_token_id": 2}),
    "gpt2": Architecture("gpt2", "bytes", _GPT2, marked=False),
    "llama": Architecture("llama", "bytes", _BERT | _LONG | {"num_key_value_heads": 1, "head_dim": 8}, marked=False),
    "bart": Architecture("bart", "bytes", _BART | _LONG),
}  # fmt: skip


def save(name: str, folder: Path) -> Path:
    """A classifier of LABELS."""
    made = ARCHITECTURES[name]
    reader = tokenizer(made, [text for text, _ in TEXTS])
    config = AutoConfig.for_model(made.kind, **made.sizes, **IDS, vocab_size=len(reader))
    config.update(entries(Head.of_labels(LABELS)))
    torch.manual_seed(0)
    model = AutoModelForSequenceClassification.from_config(config)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.dim() > 1:
                parameter.mul_(SCALE)
    with quiet():
        model.save_pretrained(folder)
        reader.save_pretrained(folder)
    return folder


def tokenizer(made: Architecture, texts: Sequence[str]) -> PreTrainedTokenizerFast:
    """Trained on `texts`."""
    options: dict[str, Any] = {"special_tokens": list(MARKS), "show_progress": False, "vocab_size": 300}
    if made.reader == "words":
        reader = Tokenizer(models.WordPiece(unk_token="<unk>"))
        reader.normalizer, reader.pre_tokenizer = normalizers.BertNormalizer(), pre_tokenizers.BertPreTokenizer()
        trainer: Any = trainers.WordPieceTrainer(**options)
    elif made.reader == "bytes":
        reader = Tokenizer(models.BPE())
        reader.pre_tokenizer, reader.decoder = pre_tokenizers.ByteLevel(add_prefix_space=False), decoders.ByteLevel()
        trainer = trainers.BpeTrainer(initial_alphabet=pre_tokenizers.ByteLevel.alphabet(), **options)
    else:
        reader = Tokenizer(models.Unigram())
        reader.pre_tokenizer = pre_tokenizers.Metaspace()
        # Fewer tokens than a hundred are taken for no tokenizer: letters of another script fill it up.
        alphabet = [chr(code) for code in range(0x3041, 0x3097)]
        trainer = trainers.UnigramTrainer(unk_token="<unk>", initial_alphabet=alphabet, **options)
    reader.train_from_iterator(texts, trainer)
    if made.marked:
        reader.post_processor = processors.TemplateProcessing("<s> $A </s>", special_tokens=[("<s>", 0), ("</s>", 2)])
    names = dict(zip(("bos_token", "pad_token", "eos_token", "unk_token", "mask_token"), MARKS, strict=True))
    return PreTrainedTokenizerFast(tokenizer_object=reader, cls_token="<s>", sep_token="</s>", **names)
