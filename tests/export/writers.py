"""Tiny encoder–decoders that have learned to rewrite for a few seconds, so that their texts differ and end."""

import itertools
import random
from pathlib import Path
from typing import Any

import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers
from transformers import (
    AutoModelForSeq2SeqLM,
    AutoTokenizer,
    BartConfig,
    MarianConfig,
    PreTrainedTokenizerFast,
    T5Config,
)

MAX_LENGTH, NEW = 40, 16
ARCHITECTURES = ("t5", "bart", "marian")
SUBJECTS = ("the order", "One Piece", "volume 12", "Café Tokyo", "my refund", "the parcel", "Naruto box", "the old coupon",
            "a gift card", "Berserk deluxe")  # fmt: skip
VERBS = ("shipped", "printed", "sold out", "delivered", "cancelled", "translated")
FORMS = (
    "when was it {verb}?",
    "was it {verb} yet",
    "why is it not {verb}?",
    "tell me if it was {verb}",
    "who says it is {verb}?",
)
OPENINGS = ("I asked about {it}.", "We talked about {it} yesterday.")
PAIRS = [
    (f"{opening.format(it=it)} {form.format(verb=verb)}", form.format(verb=verb).replace("it", it, 1))
    for opening, it, verb, form in itertools.product(OPENINGS, SUBJECTS, VERBS, FORMS)
]
random.Random(0).shuffle(PAIRS)
SOURCES = [source for source, _ in PAIRS]
ODD = ["", "?", "where is my order " * 40, "Café 東京, 12.50 €\tplease", "<pad> </s> it", "when was it"]


def writer(folder: Path, kind: str, steps: int = 120) -> Path:
    """A folder with a model and its tokenizer."""
    tokenizer = _tokenizer()
    torch.manual_seed(0)
    model = AutoModelForSeq2SeqLM.from_config(_config(kind, len(tokenizer)))
    if kind == "bart":
        model.final_logits_bias.normal_()
    _learn(model, tokenizer, steps)
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


@torch.no_grad()
def torch_writes(folder: Path, texts: list[str], most: int = NEW) -> list[str]:
    """transformers' greedy texts, computed without mangakd, in batches of texts of about one length."""
    tokenizer = AutoTokenizer.from_pretrained(folder, split_special_tokens=True)
    model = AutoModelForSeq2SeqLM.from_pretrained(folder).eval()
    written = dict[str, str]()
    order = sorted(dict.fromkeys(texts), key=len)
    for start in range(0, len(order), 25):
        part = order[start : start + 25]
        inputs = tokenizer(part, padding=True, truncation=True, max_length=MAX_LENGTH, return_tensors="pt")
        ids = model.generate(
            input_ids=inputs.input_ids,
            attention_mask=inputs.attention_mask,
            max_new_tokens=most,
            do_sample=False,
            num_beams=1,
        )
        written |= zip(part, tokenizer.batch_decode(ids, skip_special_tokens=True), strict=True)
    return [written[text].strip() for text in texts]


def _tokenizer() -> PreTrainedTokenizerFast:
    backend = Tokenizer(models.BPE())
    backend.pre_tokenizer, backend.decoder = pre_tokenizers.ByteLevel(add_prefix_space=False), decoders.ByteLevel()
    special = ["<pad>", "</s>", "<s>"]
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(
        vocab_size=400, special_tokens=special, initial_alphabet=alphabet, show_progress=False
    )
    backend.train_from_iterator(itertools.chain(*PAIRS), trainer)
    backend.post_processor = processors.TemplateProcessing(single="$A </s>", special_tokens=[("</s>", 1)])
    return PreTrainedTokenizerFast(
        tokenizer_object=backend, pad_token="<pad>", eos_token="</s>", bos_token="<s>", model_max_length=MAX_LENGTH
    )


def _config(kind: str, vocabulary: int) -> Any:
    ids: dict[str, Any] = {"pad_token_id": 0, "eos_token_id": 1, "decoder_start_token_id": 0}
    if kind == "t5":
        return T5Config(
            vocab_size=vocabulary + 7, d_model=48, d_kv=12, d_ff=96, num_layers=2, num_decoder_layers=1, num_heads=4,
            dropout_rate=0.0, **ids,
        )  # fmt: skip
    sizes: dict[str, Any] = {
        "d_model": 48, "encoder_layers": 1, "decoder_layers": 2, "encoder_attention_heads": 4, "decoder_attention_heads": 4,
        "encoder_ffn_dim": 96, "decoder_ffn_dim": 96, "max_position_embeddings": MAX_LENGTH, "dropout": 0.0,
    }  # fmt: skip
    if kind == "bart":
        ids |= {"decoder_start_token_id": 1, "bos_token_id": 2, "forced_eos_token_id": None}
        return BartConfig(vocab_size=vocabulary, **sizes, **ids)
    return MarianConfig(vocab_size=vocabulary, decoder_vocab_size=vocabulary, forced_eos_token_id=None, **sizes, **ids)


def _learn(model: Any, tokenizer: Any, steps: int) -> None:
    optimizer = torch.optim.AdamW(model.parameters(), lr=4e-3)
    order = random.Random(1)
    model.train()
    for _ in range(steps):
        sources, targets = zip(*order.sample(PAIRS, 24), strict=True)
        inputs = tokenizer(list(sources), padding=True, return_tensors="pt", return_token_type_ids=False)
        labels = tokenizer(list(targets), padding=True, return_tensors="pt")
        ids = labels["input_ids"].masked_fill(labels["attention_mask"] == 0, -100)
        model(**inputs, labels=ids).loss.backward()
        optimizer.step()
        optimizer.zero_grad()
    model.eval()
