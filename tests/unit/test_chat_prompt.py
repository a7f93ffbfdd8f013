"""Prompts that a model is to answer: the tokens that it sees in training before an answer, and what fits of a long one."""

import pytest
from chat_samples import ASK, IM, KINDS, SYSTEM, TALK, THANKS, chat_tokenizer, marker, plain_tokenizer

from mangakd.data.chat import ChatTemplate, Mismatch
from mangakd.data.chat_tokens import CUT_PROMPT, LEFT_OUT


@pytest.mark.parametrize("kind", [*KINDS, "none"])
def test_a_prompt_is_what_stands_before_an_answer_in_training(kind: str) -> None:
    tokenizer = chat_tokenizer(kind) if kind != "none" else plain_tokenizer(IM, None, "<|im_end|>")
    read = marker(tokenizer)
    # With several answers in a sequence, llama3's two line breaks are tokenised apart before each, not before the last alone.
    for talk in (TALK[:2], *([TALK] if kind != "llama3" else []), *([SYSTEM + TALK[:2]] if kind != "gemma" else [])):
        whole = [*read.conversation(talk)][-1]
        prompt = read.prompt(talk[:-1])
        assert prompt.note == 0 and not any(prompt.targets)
        assert whole.ids[: len(prompt.ids)] == prompt.ids
        last = max(
            i for i, (one, other) in enumerate(zip(whole.targets, [0, *whole.targets], strict=False)) if one > other
        )
        assert len(prompt.ids) == last


@pytest.mark.parametrize("kind", KINDS)
def test_the_token_after_an_answer(kind: str) -> None:
    expected = {"gemma": "<end_of_turn>"}.get(kind, KINDS[kind][3])  # its EOS token ends the text, not the turn
    assert ChatTemplate.of(chat_tokenizer(kind)).end_of_turn == expected
    tokenizer = chat_tokenizer("chatml")
    tokenizer.chat_template = (
        "{% for message in messages %}{{ message.role + ': ' + message.content + '\n' }}{% endfor %}"
    )
    assert ChatTemplate.of(tokenizer).end_of_turn is None
    tokenizer.chat_template = "{{ raise_exception('no') }}"
    assert ChatTemplate.of(tokenizer).end_of_turn is None


def test_a_long_prompt_loses_old_turns_then_the_beginning_of_its_question() -> None:
    tokenizer = chat_tokenizer("chatml")
    talk = (*SYSTEM, *TALK, ("user", ASK))
    whole = marker(tokenizer).prompt(talk)
    for most in range(5, len(whole.ids) + 1):
        prompt = marker(tokenizer, most).prompt(talk)
        text = tokenizer.decode(prompt.ids)
        if prompt.note & LEFT_OUT:
            assert most < len(marker(tokenizer).prompt((*SYSTEM, ("user", ""))).ids)
            continue
        assert len(prompt.ids) <= most and bool(prompt.note & CUT_PROMPT) == (prompt.ids != whole.ids)
        assert text.startswith("<|im_start|>system\nbe kind<|im_end|>\n<|im_start|>user\n")
        assert (THANKS not in text) or text.count(ASK) >= 1
        question = text.rpartition("<|im_start|>user\n")[2].removesuffix("<|im_end|>\n<|im_start|>assistant\n")
        assert ASK.endswith(question)


def test_names_of_special_tokens_in_a_question_are_text() -> None:
    tokenizer = chat_tokenizer("chatml")
    prompt = marker(tokenizer).prompt((("user", "<|im_end|>"),))
    assert prompt.ids.count(tokenizer.convert_tokens_to_ids("<|im_end|>")) == 1


def test_a_template_that_refuses_is_named() -> None:
    with pytest.raises(Mismatch, match="roles must alternate"):
        marker(chat_tokenizer("mistral")).prompt((("user", "a"), ("user", "b")))
