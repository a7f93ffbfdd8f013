"""A small language model for tests and the quickstart, made on the spot: Llama's shape, and a tokenizer trained on given texts.

`teacher.path=embedded_tiny` is the one whose tokenizer was trained on the made-up shop's answers.

Its 3.5 million weights are random: it is fine-tuned before it teaches anything. The tokenizer is byte-level BPE, so that it reads
any text, with the markup of ChatML.
"""

import hashlib
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

import torch
from tokenizers import Tokenizer, models, pre_tokenizers, trainers
from transformers import AutoModelForCausalLM, LlamaConfig, PreTrainedTokenizerFast

from mangakd.core.locks import made_once
from mangakd.models.byte_level import byte_level
from mangakd.models.quiet import quiet
from mangakd.shop import manga_answers

NAME = "embedded_tiny"
VOCABULARY, LONGEST = 2048, 1024
SIZES: dict[str, Any] = {
    "hidden_size": 256, "intermediate_size": 640, "num_hidden_layers": 4, "num_attention_heads": 4, "num_key_value_heads": 4,
    "max_position_embeddings": LONGEST, "tie_word_embeddings": True,
}  # fmt: skip
SPECIAL = ("<|endoftext|>", "<|im_start|>", "<|im_end|>", "<|pad|>")
MARKS = {"unk_token": SPECIAL[0], "bos_token": SPECIAL[1], "eos_token": SPECIAL[2], "pad_token": SPECIAL[3]}
TEMPLATE = """\
{%- for message in messages -%}
{{- '<|im_start|>' + message['role'] + '\\n' -}}
{%- if message['role'] == 'assistant' -%}
{% generation %}{{- message['content'] + '<|im_end|>' -}}{% endgeneration %}
{%- else -%}
{{- message['content'] + '<|im_end|>' -}}
{%- endif -%}
{{- '\\n' -}}
{%- endfor -%}
{%- if add_generation_prompt -%}{{- '<|im_start|>assistant\\n' -}}{%- endif -%}"""


def of_shop(cache: Path) -> Path:
    """The folder of the model that reads the shop's language."""
    answers = manga_answers.make_split("train")
    return folder([text for each in answers for text in (each.prompt, *each.context, each.answer)], cache)


def folder(texts: Sequence[str], cache: Path, seed: int = 0) -> Path:
    """A folder with config, random weights and the tokenizer of `texts` in `cache`, made at the first call."""

    def make(folder: Path) -> None:
        tokenizer = train_tokenizer(texts)
        save(lambda: AutoModelForCausalLM.from_config(config(tokenizer), dtype=torch.float32), tokenizer, seed, folder)

    place = cache / "models" / f"tiny-{digest(texts, SIZES, TEMPLATE, VOCABULARY, seed)}"
    return made_once(place, "making a tiny language model", make)


def digest(texts: Iterable[str], *settings: Any) -> str:
    """What names the folder of a model that is made of these texts and settings."""
    content = hashlib.sha256("".join(map(str, settings)).encode())
    for text in texts:
        content.update(f"{len(text)} {text}".encode("utf-8", "surrogatepass"))
    return content.hexdigest()[:16]


def save(make: Callable[[], Any], tokenizer: Any, seed: int, folder: Path) -> None:
    """A model whose random weights follow the seed, and its tokenizer."""
    with quiet(), torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        make().save_pretrained(folder)
        tokenizer.save_pretrained(folder)


def train_tokenizer(texts: Iterable[str]) -> Any:
    """The same tokenizer for the same texts, of at most VOCABULARY tokens; texts of few words give fewer."""
    tokenizer = train_bpe(texts, SPECIAL)
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, chat_template=TEMPLATE, model_max_length=LONGEST, **MARKS
    )


def train_bpe(texts: Iterable[str], special: Sequence[str]) -> Tokenizer:
    """A byte-level tokenizer of `texts`, whose first tokens are the special ones."""
    tokenizer = byte_level(models.BPE())
    trainer = trainers.BpeTrainer(
        vocab_size=VOCABULARY,
        special_tokens=list(special),
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(texts, trainer)
    return tokenizer


def config(tokenizer: Any) -> LlamaConfig:
    """Of a model that reads with this tokenizer."""
    ids = {name: getattr(tokenizer, name) for name in ("bos_token_id", "eos_token_id", "pad_token_id")}
    return LlamaConfig(**{**SIZES, **ids, "vocab_size": len(tokenizer)})
