"""Target tokens of conversations: golden masks by hand for templates of every kind, and what is refused."""

from typing import Any

import pytest
from chat_samples import (
    ASK,
    BYE,
    CHATML,
    IM,
    KINDS,
    MARKED,
    REPLY,
    SYSTEM,
    TALK,
    chat_tokenizer,
    marker,
    plain_tokenizer,
    shown,
    text_of,
)
from tokenizers import AddedToken
from transformers import PreTrainedTokenizerFast

from mangakd.core.errors import UserError
from mangakd.data.chat import ChatTemplate
from mangakd.data.chat_tokens import APART, ENDLESS, LEAD, SPLIT
from mangakd.data.rows import Messages


def sequences(tokenizer: Any, messages: Messages, **options: Any) -> list[str]:
    return [shown(tokenizer, each) for each in marker(tokenizer, **options).conversation(messages)]


GOLDEN: dict[str, tuple[Messages, list[str]]] = {
    "chatml": (
        SYSTEM + TALK,
        [
            "<|im_start|>system\nbe kind<|im_end|>\n<|im_start|>user\nwhere is my order?<|im_end|>\n<|im_start|>assistant\n"
            "⟦it is on its way<|im_end|>⟧\n<|im_start|>user\nthank you<|im_end|>\n<|im_start|>assistant\n⟦good bye<|im_end|>⟧"
        ],
    ),
    "marked": (
        SYSTEM + TALK,
        [
            "<|im_start|>system\nbe kind<|im_end|>\n<|im_start|>user\nwhere is my order?<|im_end|>\n<|im_start|>assistant\n"
            "⟦it is on its way<|im_end|>⟧\n<|im_start|>user\nthank you<|im_end|>\n<|im_start|>assistant\n⟦good bye<|im_end|>⟧"
        ],
    ),
    "llama3": (
        SYSTEM + TALK,
        [
            "<s><|start_header_id|>system<|end_header_id|>\n\nToday: 26.07.2024\nbe kind<|eot_id|>"
            "<|start_header_id|>user<|end_header_id|>\n\nwhere is my order?<|eot_id|>"
            "<|start_header_id|>assistant<|end_header_id|>\n\n⟦it is on its way<|eot_id|>⟧"
            "<|start_header_id|>user<|end_header_id|>\n\nthank you<|eot_id|>"
            "<|start_header_id|>assistant<|end_header_id|>\n\n⟦good bye<|eot_id|>⟧"
        ],
    ),
    "gemma": (
        TALK,
        [
            "<bos><start_of_turn>user\nwhere is my order?<end_of_turn>\n<start_of_turn>model\n⟦it is on its way<end_of_turn>⟧\n"
            "<start_of_turn>user\nthank you<end_of_turn>\n<start_of_turn>model\n⟦good bye<end_of_turn>⟧"
        ],
    ),
    "mistral": (
        SYSTEM + TALK,
        [
            "<s>[INST] be kind\n\nwhere is my order?[/INST]⟦ it is on its way</s>⟧",
            "<s>[INST] where is my order?[/INST] it is on its way[INST] be kind\n\nthank you[/INST]⟦ good bye</s>⟧",
        ],
    ),
    "qwen3": (
        (("user", ASK), ("assistant", f"<think>\nI look\n</think>\n\n{REPLY}"), *TALK[2:]),
        [
            "<|im_start|>user\nwhere is my order?<|im_end|>\n<|im_start|>assistant\n"
            "⟦<think>\nI look\n</think>\n\nit is on its way<|im_end|>⟧",
            "<|im_start|>user\nwhere is my order?<|im_end|>\n<|im_start|>assistant\nit is on its way<|im_end|>\n"
            "<|im_start|>user\nthank you<|im_end|>\n<|im_start|>assistant\n⟦<think>\n\n</think>\n\ngood bye<|im_end|>⟧",
        ],
    ),
}  # fmt: skip


@pytest.mark.parametrize("kind", GOLDEN)
def test_golden_masks(kind: str) -> None:
    messages, wanted = GOLDEN[kind]
    assert sequences(chat_tokenizer(kind), messages) == wanted


@pytest.mark.parametrize("kind", KINDS)
def test_the_ids_are_those_of_the_library(kind: str) -> None:
    """A rendering that is tokenised as a whole, with one BOS token, and its prompt as it is tokenised alone."""
    reader = chat_tokenizer(kind)
    (marked,) = marker(reader).conversation(TALK[:2])
    reader.split_special_tokens = False  # with it the library reads the template's own special tokens as text
    chat = [{"role": role, "content": content} for role, content in TALK[:2]]
    wanted = reader.apply_chat_template(chat)["input_ids"]
    prompt = reader.apply_chat_template(chat[:1], add_generation_prompt=True)["input_ids"]
    assert kind == "qwen3" or marked.ids[: marked.prompt] == prompt  # whose template adds a thought
    if marked.note & APART:  # GPT-2 splits two line breaks before a word
        assert kind == "llama3" and reader.decode(wanted).startswith(reader.decode(marked.ids))
    else:
        assert wanted[: len(marked.ids)] == marked.ids and len(wanted) - len(marked.ids) <= 1
    assert reader.bos_token_id is None or marked.ids.count(reader.bos_token_id) == 1


def test_first_and_last_token_of_an_answer_are_targets() -> None:
    reader = chat_tokenizer("chatml")
    (marked,) = marker(reader).conversation(TALK[:2])
    places = [i for i, target in enumerate(marked.targets) if target]
    answer = reader(REPLY, add_special_tokens=False)["input_ids"]
    assert [marked.ids[i] for i in places] == [*answer, reader.eos_token_id]
    assert places == [*range(places[0], len(marked.ids))] and marked.targets[0] == 0
    assert marked.prompt == places[0]


def test_a_token_that_straddles_the_prompt_is_divided() -> None:
    """Its offsets are trimmed by the tokenizer, so that they do not show it."""
    reader = plain_tokenizer(IM, None, "<|im_end|>")
    assert reader("a hello", return_offsets_mapping=True)["offset_mapping"] == [(0, 1), (2, 7)]
    reader.chat_template = (
        "{% for message in messages %}{{ message.role + ': ' + message.content + '<|im_end|>' }}{% endfor %}"
        "{% if add_generation_prompt %}{{ 'assistant: ' }}{% endif %}"
    )
    (marked,) = marker(reader).conversation((("user", "hello"), ("assistant", "hello")))
    assert shown(reader, marked) == "user: hello<|im_end|>assistant: ⟦hello<|im_end|>⟧" and marked.note == APART
    reader.split_special_tokens = False
    prompt = reader("user: hello<|im_end|>assistant: ")["input_ids"]
    assert marked.ids[: marked.prompt] == prompt, "as a model reads the prompt that it answers"


def test_the_last_mark_may_leave_the_end_of_turn_out() -> None:
    inside = "message.content + '<|im_end|>' }}{% endgeneration %}"
    assert inside in MARKED
    reader = chat_tokenizer("marked")
    reader.chat_template = MARKED.replace(inside, "message.content }}{% endgeneration %}{{ '<|im_end|>' }}")
    assert sequences(reader, SYSTEM + TALK) == GOLDEN["marked"][1]


def test_marks_may_begin_with_the_blank_of_a_word() -> None:
    """The library gives such an answer no token: findings/assistant_mask_trimmed_offsets.sh."""
    reader = chat_tokenizer("marked")
    reader.chat_template = MARKED.replace(
        "{{ message.content + '<|im_end|>' }}{% endg", "{{ ' ' + message.content + '<|im_end|>' }}{% endg"
    )
    (marked,) = marker(reader).conversation(TALK)
    assert text_of(reader, marked) == f" {REPLY}<|im_end|> {BYE}<|im_end|>"


def test_special_tokens_may_be_beyond_the_vocabulary() -> None:
    """As Llama 3's, which were added after training."""
    made = plain_tokenizer((), None, None)
    backend = made.backend_tokenizer
    backend.add_special_tokens([AddedToken(name, special=True) for name in IM])
    reader = PreTrainedTokenizerFast(tokenizer_object=backend, eos_token="<|im_end|>", chat_template=CHATML)
    assert sequences(reader, SYSTEM + TALK) == GOLDEN["chatml"][1]
    (marked,) = marker(reader).conversation((TALK[0], ("assistant", "<|im_end|>")))
    assert text_of(reader, marked) == "<|im_end|><|im_end|>" and marked.ids.count(reader.eos_token_id) == 2


def test_an_end_token_after_the_end_of_turn_is_no_target() -> None:
    reader = chat_tokenizer("llama3")
    reader.chat_template = (
        CHATML.replace("<|im_start|>", "<|start_header_id|>").replace("<|im_end|>", "<|eot_id|>")
        + "{% if not add_generation_prompt %}{{ '<s>' }}{% endif %}"
    )
    (marked,) = marker(reader).conversation(TALK)
    assert text_of(reader, marked) == f"{REPLY}<|eot_id|>{BYE}<|eot_id|>"


def test_special_tokens_may_take_the_blanks_after_them() -> None:
    """As Phi-3's. A blank that is lost to every prompt is no target."""
    made = plain_tokenizer((), None, None)
    backend = made.backend_tokenizer
    backend.add_special_tokens([AddedToken(name, special=True, rstrip=True) for name in IM])
    reader = PreTrainedTokenizerFast(tokenizer_object=backend, eos_token="<|im_end|>")
    reader.chat_template = CHATML.replace("message.role + '\n'", "message.role + '<|im_start|>\n'").replace(
        "assistant\n", "assistant<|im_start|>\n"
    )
    (marked,) = marker(reader).conversation((TALK[0], ("assistant", " yes"), *TALK[2:]))
    assert text_of(reader, marked) == f"yes<|im_end|>{BYE}<|im_end|>"


def test_a_marked_header_belongs_to_the_prompt() -> None:
    header = "{{ '<|im_start|>' + message.role + '\n' }}{% if message.role == 'assistant' %}{% generation %}"
    assert header in MARKED
    reader = chat_tokenizer("marked")
    reader.chat_template = MARKED.replace(
        header, "{% if message.role == 'assistant' %}{% generation %}{{ '<|im_start|>assistant\n' }}"
    ).replace("{% else %}", "{% else %}{{ '<|im_start|>' + message.role + '\n' }}")
    assert sequences(reader, SYSTEM + TALK) == GOLDEN["marked"][1]


def test_what_a_template_writes_before_an_answer_or_lacks_after_it_is_noted() -> None:
    reader = chat_tokenizer("qwen3")
    assert [marked.note for marked in marker(reader).conversation(TALK)] == [SPLIT | LEAD] * 2
    notes = [marked.note for marked in marker(reader, enable_thinking=False).conversation(TALK)]
    assert notes == [SPLIT | APART] * 2  # GPT-2 splits two line breaks before a word
    reader.chat_template = "{% for message in messages %}{{ message.role + ': ' + message.content + '\n' }}{% endfor %}"
    (marked,) = marker(reader).conversation(TALK[:2])
    assert marked.note & ENDLESS and marked.note & LEAD


def test_a_tokenizer_without_a_template_gets_a_plain_one(caplog: pytest.LogCaptureFixture) -> None:
    for bos in (None, "<s>"):
        reader = plain_tokenizer(("<s>", "</s>"), bos, "</s>")
        assert sequences(reader, SYSTEM + TALK) == [
            f"{bos or ''}System:\nbe kind\nUser:\nwhere is my order?\nAssistant:\n⟦it is on its way</s>⟧\n"
            "User:\nthank you\nAssistant:\n⟦good bye</s>⟧"
        ]
    assert "has no chat template: a line with the role stands before each message" in caplog.text
    with pytest.raises(UserError, match="no chat template and no EOS token"):
        ChatTemplate.of(plain_tokenizer(("<s>",), None, None))
    reader.chat_template = {"one": CHATML, "other": CHATML}
    with pytest.raises(UserError, match="several chat templates"):
        ChatTemplate.of(reader)


def test_plain_texts_are_targets_but_for_their_first_token() -> None:
    for bos, wanted in ((None, "where⟦ is it?</s>⟧"), ("<s>", "<s>⟦where is it?</s>⟧")):
        reader = plain_tokenizer(("<s>", "</s>"), bos, "</s>")
        reader.chat_template = CHATML
        assert shown(reader, marker(reader).text("where is it?")) == wanted
        named = marker(reader).text("a </s> b")
        assert named.ids.count(reader.eos_token_id) == 1 and reader.decode(named.ids).endswith("a </s> b</s>")


def test_a_greeting_is_no_answer() -> None:
    assert sequences(chat_tokenizer("marked"), (("assistant", "hello"), *TALK[:2])) == [
        "<|im_start|>assistant\nhello<|im_end|>\n<|im_start|>user\nwhere is my order?<|im_end|>\n<|im_start|>assistant\n"
        "⟦it is on its way<|im_end|>⟧"
    ]
