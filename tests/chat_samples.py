"""Chat templates that behave like those of well-known models, and a byte-level BPE tokenizer for each, trained on the spot."""

import json
from functools import cache
from itertools import groupby
from typing import Any

from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers
from transformers import PreTrainedTokenizerFast

from mangakd.data.chat import ChatTemplate
from mangakd.data.chat_tokens import Marked, Marker
from mangakd.data.rows import Messages

CHATML = (
    "{% for message in messages %}{{ '<|im_start|>' + message.role + '\n' + message.content + '<|im_end|>' + '\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)
# It writes the BOS token, which the tokenizer puts before every text as well, and today's date.
LLAMA3 = (
    "{{ bos_token }}{% for message in messages %}{{ '<|start_header_id|>' + message.role + '<|end_header_id|>\n\n' }}"
    "{% if message.role == 'system' %}{{ 'Today: ' + strftime_now('%d.%m.%Y') + '\n' }}{% endif %}"
    "{{ message.content | trim + '<|eot_id|>' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|start_header_id|>assistant<|end_header_id|>\n\n' }}{% endif %}"
)
# The last turn has its reasoning, or an empty one; earlier turns have none.
QWEN3 = (
    "{% for message in messages %}{% set content = message.content.split('</think>')[-1].lstrip('\n') %}"
    "{{ '<|im_start|>' + message.role + '\n' }}{% if message.role == 'assistant' and loop.last %}"
    "{% set thought = message.content.split('</think>')[0].split('<think>')[-1] if '</think>' in message.content else '' %}"
    "{{ '<think>\n' + thought.strip('\n') + '\n</think>\n\n' }}{% endif %}{{ content + '<|im_end|>\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}"
    "{% if enable_thinking is defined and not enable_thinking %}{{ '<think>\n\n</think>\n\n' }}{% endif %}{% endif %}"
)
# The system prompt stands in the last question, the EOS token at the end of the text alone.
MISTRAL = (
    "{{ bos_token }}{% set system = messages[0].content if messages[0].role == 'system' else '' %}"
    "{% set turns = messages[1:] if system else messages %}{% set last = turns | selectattr('role', 'equalto', 'user') | list %}"
    "{% for message in turns %}{% if (message.role == 'user') != (loop.index0 % 2 == 0) %}"
    "{{ raise_exception('roles must alternate user/assistant') }}{% endif %}{% if message.role == 'user' %}"
    "{{ '[INST] ' + (system + '\n\n' if system and message == last[-1] else '') + message.content + '[/INST]' }}"
    "{% else %}{{ ' ' + message.content + (eos_token if loop.last else '') }}{% endif %}{% endfor %}"
)
GEMMA = (
    "{{ bos_token }}{% if messages[0].role == 'system' %}{{ raise_exception('System role not supported') }}{% endif %}"
    "{% for message in messages %}{{ '<start_of_turn>' + ('model' if message.role == 'assistant' else message.role) + '\n' }}"
    "{{ message.content | trim + '<end_of_turn>\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<start_of_turn>model\n' }}{% endif %}"
)
MARKED = (
    "{% for message in messages %}{{ '<|im_start|>' + message.role + '\n' }}{% if message.role == 'assistant' %}"
    "{% generation %}{{ message.content + '<|im_end|>' }}{% endgeneration %}{% else %}{{ message.content + '<|im_end|>' }}"
    "{% endif %}{{ '\n' }}{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)
IM = ("<|im_start|>", "<|im_end|>")
# template, special tokens, BOS, EOS
KINDS: dict[str, tuple[str, tuple[str, ...], str | None, str]] = {
    "chatml": (CHATML, IM, None, "<|im_end|>"),
    "llama3": (LLAMA3, ("<s>", "<|start_header_id|>", "<|end_header_id|>", "<|eot_id|>"), "<s>", "<|eot_id|>"),
    "qwen3": (QWEN3, IM, None, "<|im_end|>"),
    "mistral": (MISTRAL, ("<s>", "</s>", "[INST]", "[/INST]"), "<s>", "</s>"),
    "gemma": (GEMMA, ("<bos>", "<eos>", "<start_of_turn>", "<end_of_turn>"), "<bos>", "<eos>"),
    "marked": (MARKED, IM, None, "<|im_end|>"),
}
TEXT = (
    "where is my order? it is on its way. thank you, good bye. the book is here and the answer is no. yes, it is.",
    "<think> assistant system user model Assistant: hello Hello answer question today: \n\n",
)


@cache
def _trained(special: tuple[str, ...]) -> Tokenizer:
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(
        vocab_size=420, initial_alphabet=alphabet, special_tokens=["<pad>", *special], show_progress=False
    )
    tokenizer.train_from_iterator(TEXT * 3, trainer)
    return tokenizer


def plain_tokenizer(special: tuple[str, ...], bos: str | None, eos: str | None) -> Any:
    """Without a chat template. It puts a BOS token before every text and trims the blank before a word from its offsets."""
    backend = Tokenizer.from_str(_trained(special).to_str())
    backend.post_processor = processors.ByteLevel(trim_offsets=True)
    if bos:
        first = processors.TemplateProcessing(f"{bos} $A", f"{bos} $A {bos} $B", [(bos, special.index(bos) + 1)])
        backend.post_processor = processors.Sequence([backend.post_processor, first])
    # As models.load loads it: names of special tokens in a text are text.
    return PreTrainedTokenizerFast(
        tokenizer_object=backend, bos_token=bos, eos_token=eos, pad_token="<pad>", split_special_tokens=True
    )


def chat_tokenizer(kind: str) -> Any:
    template, special, bos, eos = KINDS[kind]
    made = plain_tokenizer(special, bos, eos)
    made.chat_template = template
    return made


def blank_tokenizer(kind: str, blanks: str) -> Any:
    """Tokenizers that write blanks as ▁, as SentencePiece does. blanks: how they treat the first blank of a text."""
    template, special, bos, eos = KINDS[kind]
    backend, trainer = _of_blanks(blanks, special)
    backend.train_from_iterator(TEXT * 3, trainer)
    state = json.loads(backend.to_str())
    state["added_tokens"] = [token for token in state["added_tokens"] if not token["content"].startswith("<0x")]
    made = PreTrainedTokenizerFast(
        tokenizer_object=Tokenizer.from_str(json.dumps(state)), bos_token=bos, eos_token=eos, pad_token="<pad>",
        split_special_tokens=True,
    )  # fmt: skip
    made.chat_template = template
    return made


def _of_blanks(blanks: str, special: tuple[str, ...]) -> tuple[Tokenizer, Any]:
    names = ["<pad>", "<unk>", *special]
    if blanks == "unigram":
        backend = Tokenizer(models.Unigram())
        trainer: Any = trainers.UnigramTrainer(
            vocab_size=150,
            special_tokens=names,
            unk_token="<unk>",
            initial_alphabet=["|", "_", "/"],
            show_progress=False,
        )
    else:
        backend = Tokenizer(models.BPE(byte_fallback=True, unk_token="<unk>", fuse_unk=True))
        names += [f"<0x{i:02X}>" for i in range(256)]
        trainer = trainers.BpeTrainer(vocab_size=600, special_tokens=names, show_progress=False)
    steps = [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse()]
    if blanks == "prepend":
        backend.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
    else:
        scheme = {"unigram": "always"}.get(blanks, blanks)
        backend.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme=scheme, split=blanks == "unigram")
    backend.decoder = decoders.Sequence(steps)
    return backend, trainer


ASK, REPLY, THANKS, BYE = "where is my order?", "it is on its way", "thank you", "good bye"
TALK: Messages = (("user", ASK), ("assistant", REPLY), ("user", THANKS), ("assistant", BYE))
SYSTEM: Messages = (("system", "be kind"),)


def marker(tokenizer: Any, most: int = 10_000, **options: Any) -> Marker:
    return Marker(tokenizer, ChatTemplate.of(tokenizer, options), most)


def shown(tokenizer: Any, marked: Marked) -> str:
    """The text of a sequence with its targets in ⟦⟧."""
    runs = groupby(zip(marked.ids, marked.targets, strict=True), key=lambda pair: pair[1])
    parts = ((target, tokenizer.decode([token for token, _ in run])) for target, run in runs)
    return "".join(f"⟦{text}⟧" if target else text for target, text in parts)


def text_of(reader: Any, marked: Marked) -> str:
    return reader.decode([token for token, target in zip(marked.ids, marked.targets, strict=True) if target])
