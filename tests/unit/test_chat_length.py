"""What becomes of prompts and answers that are longer than data.max_length, and what the log says of it."""

import logging
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from chat_samples import chat_tokenizer

from mangakd.core.errors import UserError
from mangakd.data import chats
from mangakd.data.chat import ChatTemplate
from mangakd.data.chat_tokens import CUT_ANSWER, CUT_PROMPT, CUT_TEXT, LEFT_OUT, SPLIT, Marker, TooLong
from mangakd.data.chats import Chat, ChatOptions, Chats, tokenise_chats
from mangakd.data.rows import Messages, Rows

SYSTEM: Messages = (("system", "be kind"),)
TURNS = [(("user", f"question {i}"), ("assistant", f"answer {i}")) for i in range(4)]
LONG = "one two three four five six seven eight nine ten"


def talk(count: int) -> Messages:
    return SYSTEM + tuple(message for turn in TURNS[:count] for message in turn)


def marker(most: int, too_long: TooLong = "leave_out", kind: str = "chatml") -> tuple[Any, Marker]:
    reader = chat_tokenizer(kind)
    return reader, Marker(reader, ChatTemplate.of(reader), most, too_long)


def size(messages: Messages) -> int:
    (marked,) = marker(10_000)[1].conversation(messages)
    return len(marked.ids)


def read(reader: Any, ids: list[int], targets: list[int]) -> tuple[str, str]:
    return reader.decode(ids), reader.decode([token for token, target in zip(ids, targets, strict=True) if target])


@pytest.mark.parametrize("kept", [1, 2, 3])
def test_the_oldest_turns_go_first_and_the_system_prompt_stays(kept: int) -> None:
    """Each answer keeps the turns that fit before it, and no answer is lost."""
    most = size(SYSTEM + tuple(message for turn in TURNS[-kept:] for message in turn))
    reader, mark = marker(most)
    made = [*mark.conversation(talk(4))]
    assert len(made) == 4 and all(len(each.ids) <= most for each in made)
    for i, each in enumerate(made):
        text, answer = read(reader, each.ids, each.targets)
        assert answer == f"answer {i}<|im_end|>" and text.startswith("<|im_start|>system\nbe kind<|im_end|>\n")
        assert [f"question {j}" in text for j in range(4)] == [max(0, i - kept + 1) <= j <= i for j in range(4)]
        assert each.note == SPLIT | (CUT_PROMPT if i >= kept else 0)
    (whole,) = marker(size(talk(4)))[1].conversation(talk(4))
    assert whole.note == 0 and sum(whole.targets) == sum(sum(each.targets) for each in made)


def test_a_long_question_loses_its_beginning_alone() -> None:
    messages: Messages = (*SYSTEM, ("user", LONG), ("assistant", "yes"))
    whole = size(messages)
    for most in range(whole - 1, whole - 20, -1):
        reader, mark = marker(most)
        (marked,) = mark.conversation(messages)
        text, answer = read(reader, marked.ids, marked.targets)
        question = text.split("<|im_start|>user\n")[1].split("<|im_end|>")[0]
        assert LONG.endswith(question) and question != LONG and answer == "yes<|im_end|>"
        assert marked.note == CUT_PROMPT and most - 2 <= len(marked.ids) <= most


def test_answers_that_do_not_fit_are_left_out_or_cut() -> None:
    messages: Messages = (("user", LONG), ("assistant", LONG))
    (marked,) = marker(45)[1].conversation(messages)
    assert marked.note == LEFT_OUT
    reader, mark = marker(50, "cut")
    (marked,) = mark.conversation(messages)
    _, answer = read(reader, marked.ids, marked.targets)
    assert (
        len(marked.ids) == 50 and marked.note == CUT_ANSWER | CUT_PROMPT and LONG.startswith(answer) and len(answer) > 5
    )
    assert 20 <= marked.prompt <= 25
    (short,) = marker(50, "cut")[1].conversation((("user", "no?"), ("assistant", LONG)))
    assert short.note == CUT_ANSWER and short.prompt < 25 and "no?" in reader.decode(short.ids)
    (none,) = marker(8, "cut")[1].conversation(messages)
    assert none.note == LEFT_OUT, "the frame of the template alone is longer"


def test_texts_lose_their_end() -> None:
    reader, mark = marker(6)
    marked = mark.text(LONG)
    assert marked.note == CUT_TEXT and LONG.startswith(reader.decode(marked.ids)) and sum(marked.targets) == 5
    assert mark.text("is it").note == 0


def rows(chats: list[Chat]) -> Rows:
    return Rows(
        {"row": [*range(len(chats))]}, [10 * (i + 1) for i in range(len(chats))], "data.path=talk.jsonl", "line"
    )


CHATS: list[Chat] = [
    talk(1),
    (("user", LONG), ("assistant", "yes")),
    (("user", "no?"), ("assistant", LONG)),
    LONG,
    talk(2),
]


def tokens(cache: Path, most: int, chosen: list[Chat] = CHATS, **options: Any) -> Chats:
    return tokenise_chats(chosen, rows(chosen), chat_tokenizer("chatml"), ChatOptions(**options), most, cache)


def test_notices_count_and_name_the_first(tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: Any) -> None:
    """Also where the tokens come from the cache."""
    for _ in range(2):
        caplog.clear()
        with caplog.at_level(logging.WARNING):
            made = tokens(tmp_path, 40)
        assert made.owners.tolist() == [0, 1, 3, 4, 4] and made.tokens.lengths.max() <= 40
        lines = [record.getMessage().removeprefix("data.path=talk.jsonl: ") for record in caplog.records]
        assert [line.split(",")[0] for line in lines] == [
            "answers that do not fit into data.max_length=40 and are left out: 1; first: line 30",
            "prompts that do not fit into data.max_length=40 and lose old turns",
            "texts that do not fit into data.max_length=40 and lose their end: 1; first: line 40",
            "answers of a conversation that the chat template or data.max_length=40 makes a sequence of its own: 2; "
            "first: line 50",
        ]  # fmt: skip
        assert "tokens of prompt and" in lines[0] and "2; first: line 20" in lines[1]
        monkeypatch.setattr(chats, "Marker", None)


def test_the_cache_knows_everything_that_the_tokens_depend_on(tmp_path: Path) -> None:
    tokens(tmp_path, 60)
    assert len([*tmp_path.glob("*.arrow")]) == 1
    tokens(tmp_path, 61)
    tokens(tmp_path, 60, too_long="cut")
    tokens(tmp_path, 60, template={"enable_thinking": False})
    tokens(tmp_path, 60, CHATS[::-1])
    assert len([*tmp_path.glob("*.arrow")]) == 5


def test_keys_are_of_tokens_and_targets(tmp_path: Path) -> None:
    """The same tokens with other targets are another sequence for a store of answers at target positions."""
    reader = chat_tokenizer("chatml")
    reader.chat_template, reader.eos_token = "{% for message in messages %}{{ message.content }}{% endfor %}", None
    chosen: list[Chat] = [
        (("user", "where is"), ("assistant", " my order")),
        (("user", "where"), ("assistant", " is my order")),
        "where is my order",
    ]
    made = tokenise_chats(chosen, rows(chosen), reader, ChatOptions(), 60, tmp_path)
    first, second, third = made.tokens.keys.tolist()
    assert first != second == third and len({tuple(made.tokens[i].tolist()) for i in range(3)}) == 1
    targets = made.tokens.inputs(np.arange(3), 0)["targets"]
    assert targets.sum(1).tolist() == made.targets.tolist() and not targets[:, 0].any()


def test_an_answer_must_fit(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="too_long=drop must be one of leave_out, cut"):
        ChatOptions(too_long="drop")  # type: ignore[arg-type]
    with pytest.raises(UserError, match=r"no answer fits into data.max_length=9; the shortest sequence has \d+ tokens"):
        tokens(tmp_path, 9, [talk(1)])
    chosen: list[Chat] = [talk(1), (("user", "no?"),)]
    with pytest.raises(UserError, match=r"line 20 of data.path=talk.jsonl cannot be learnt: it has no answer"):
        tokens(tmp_path, 60, chosen)
    assert not [*tmp_path.glob("*.arrow")][1:]
