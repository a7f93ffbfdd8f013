"""Conversations and chat templates that are refused, with their reasons."""

import pytest
from chat_samples import ASK, CHATML, MARKED, REPLY, SYSTEM, TALK, chat_tokenizer, marker

from mangakd.data.chat import Mismatch
from mangakd.data.rows import Messages

REFUSED: list[tuple[str, Messages, str]] = [
    ("chatml", (("user", ASK),), "it has no answer"),
    ("chatml", (("assistant", REPLY), ("user", ASK)), "it has no answer"),
    ("gemma", SYSTEM + TALK, r"refuses these messages \(System role not supported\)"),
    ("chatml", (("user", "\U00100000"), ("assistant", REPLY)), r"holds the character U\+100000 for private use"),
    ("mistral", (TALK[0], *TALK), r"refuses these messages \(roles must alternate user/assistant\)"),
]


@pytest.mark.parametrize(("kind", "messages", "reason"), REFUSED)
def test_conversations_that_teach_nothing_are_refused(kind: str, messages: Messages, reason: str) -> None:
    with pytest.raises(Mismatch, match=reason):
        [*marker(chat_tokenizer(kind)).conversation(messages)]


@pytest.mark.parametrize(
    ("template", "reason"),
    [
        (CHATML.replace("message.content +", "message.content | upper +"), "renders the answer 'it is on its way' as 'IT IS"),
        (CHATML.replace("'<|im_start|>assistant\n' }}{% endif", "'<|im_start|>model\n' }}{% endif"), "right after its prompt"),
        ("{% generation %}all{% endgeneration %}" + MARKED, "marks 2 answers of 1"),
        ("{{ nothing.here }}" + CHATML, "refuses these messages .*undefined"),
        ("{% for message in messages[1:] %}{% generation %}{{ message.content }}{% endgeneration %}{% endfor %}", "no tokens of"),
    ],
)  # fmt: skip
def test_templates_that_do_not_add_up_are_refused(template: str, reason: str) -> None:
    reader = chat_tokenizer("chatml")
    reader.chat_template = template
    with pytest.raises(Mismatch, match=reason):
        [*marker(reader).conversation(TALK[:2])]
