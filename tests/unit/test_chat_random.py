"""Target tokens of random conversations: the answers and their ends, whatever names of special tokens the texts hold."""

import random

import pytest
from chat_samples import KINDS, blank_tokenizer, chat_tokenizer, marker, text_of

from mangakd.data.chat_tokens import SPLIT
from mangakd.data.rows import Messages

END = {"chatml": "<|im_end|>", "marked": "<|im_end|>", "llama3": "<|eot_id|>", "gemma": "<end_of_turn>",
       "mistral": "</s>", "qwen3": "<|im_end|>"}  # fmt: skip
PARTS = (
    "order", " the book", "é", "東京", "🎌", "👩‍👩‍👧", " ", "\n", "\t", "  it is", "?", "<|im_end|>", "</s>", "[INST]", "<s>",
    "<|eot_id|>", "<end_of_turn>", "assistant", "{% generation %}", "{{ x }}", "\\n", "\r\n", "12.5",
)  # fmt: skip


def random_text(rng: random.Random) -> str:
    """A text that is not blank, of words, blanks, scripts and names of special tokens."""
    text = "".join(rng.choices(PARTS, k=rng.randint(1, 9)))
    return text if text.strip() else text + "yes"


@pytest.mark.parametrize("kind", KINDS)
def test_targets_are_the_answers_and_their_ends(kind: str) -> None:
    """The text of the targets is that of the answers, each with one end-of-turn token; names of special tokens in it are text."""
    reader, rng = chat_tokenizer(kind), random.Random(0)
    specials = set(reader.all_special_ids) | {reader.convert_tokens_to_ids(name) for name in KINDS[kind][1]}
    mark = marker(reader, enable_thinking=False)
    trimmed = kind in ("llama3", "gemma")
    for _ in range(60):
        messages: Messages = tuple(
            (role, random_text(rng)) for _ in range(rng.randint(1, 3)) for role in ("user", "assistant")
        )
        sequences = [*mark.conversation(messages)]
        for marked, (_, answer) in zip(sequences, messages[1::2], strict=False) if len(sequences) > 1 else []:
            assert marked.note & SPLIT and text_of(reader, marked) == expected(kind, answer, trimmed)
        if len(sequences) == 1:
            whole = "".join(expected(kind, answer, trimmed) for _, answer in messages[1::2])
            assert text_of(reader, sequences[0]) == whole
        assert len(sequences) in (1, len(messages) // 2)
        for marked in sequences:
            ends = [
                token for token, target in zip(marked.ids, marked.targets, strict=True) if target and token in specials
            ]
            assert reader.convert_ids_to_tokens(ends) == [END[kind]] * (1 if len(sequences) > 1 else len(messages) // 2)
            assert marked.targets[0] == 0 and marked.targets[-1] == 1


@pytest.mark.parametrize("blanks", ["prepend", "first", "always", "never", "unigram"])
@pytest.mark.parametrize("kind", ["chatml", "mistral"])
def test_tokenizers_that_write_blanks_as_tokens(kind: str, blanks: str) -> None:
    """Their decoders add or drop single blanks; letters, ends and names of special tokens are exact."""
    reader, rng = blank_tokenizer(kind, blanks), random.Random(0)
    mark, words = marker(reader), ("where", "is", "my", "order", "</s>", "<|im_end|>", "<s>")
    for _ in range(20):
        roles = ("user", "assistant") * 2
        messages: Messages = tuple((role, " ".join(rng.choices(words, k=4))) for role in roles)
        texts = [text_of(reader, marked) for marked in mark.conversation(messages)]
        answers = "".join(expected(kind, answer, False) for _, answer in messages[1::2])
        assert "".join(texts).replace(" ", "") == answers.replace(" ", "")


def expected(kind: str, answer: str, trimmed: bool) -> str:
    answer = answer.strip() if trimmed else answer.lstrip("\n") if kind == "qwen3" else answer
    return (" " if kind == "mistral" else "") + answer + END[kind]
