"""Chat templates: a conversation as text, and where in the text the answers are.

An answer is what a model writes after the prompt, up to the end-of-turn token. A template with `{% generation %}` marks its
answers. For other templates an answer is the difference between two renderings: of the messages up to it, and of the messages
before it with the generation prompt. Texts are compared, not tokens: a prompt that is tokenised alone may end in another token.
Some templates render an earlier turn otherwise than the last one: Qwen3 leaves out its reasoning, Mistral moves the system prompt
into the last question, others write an EOS token only at the end of the text. With them each answer needs a rendering of its own.
"""

import datetime
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from threading import Lock
from typing import Any

from transformers.utils.chat_template_utils import render_jinja_template

from mangakd.core.errors import UserError
from mangakd.data.notices import log, short
from mangakd.data.rows import Messages, identity
from mangakd.data.special_names import Mismatch, Swap

PLAIN = (
    "{{ start }}{% for message in messages %}{{ message.role | capitalize + ':\n' }}{% if message.role == 'assistant' %}"
    "{% generation %}{{ message.content + eos_token }}{% endgeneration %}{% else %}{{ message.content }}{% endif %}{{ '\n' }}"
    "{% endfor %}{% if add_generation_prompt %}{{ 'Assistant:\n' }}{% endif %}"
)
"""For tokenizers without a template. start: the BOS token if the tokenizer puts it before a text, else "". A prompt ends with a
line break, which tokenizers do not join with a word."""
_MARK = r"\{%-?\s*generation\s*-?%\}"
# Templates that write today's date would give other tokens every day. This is the date that Llama 3's templates fall back to.
_DATE = datetime.date(2024, 7, 26)
_LOCK = Lock()  # transformers tracks the marks of one rendering at a time for each template


@dataclass(frozen=True)
class Rendering:
    """spans: first and last character + 1 of each answer in `text`, in which placeholders stand for names of special tokens.

    endless: whether an answer has no end-of-turn token. lead: what the template writes between a prompt and its answer.
    """

    text: str
    spans: tuple[tuple[int, int], ...]
    endless: bool = False
    lead: str = ""


@dataclass(frozen=True)
class ChatTemplate:
    """source: in Jinja. variables: names in it, such as bos_token, and options of the user, such as enable_thinking."""

    source: str
    variables: Mapping[str, Any]
    swap: Swap

    @classmethod
    def of(cls, tokenizer: Any, options: Mapping[str, Any] | None = None) -> "ChatTemplate":
        """The tokenizer's template; PLAIN, with a warning, where it has none. options: variables of the template.

        Raises UserError for a tokenizer that has several templates and no default, or neither a template nor an EOS token.
        """
        swap = Swap.of(tokenizer.backend_tokenizer)
        variables = {**tokenizer.special_tokens_map, **(options or {})}
        name = tokenizer.name_or_path
        if tokenizer.chat_template:
            try:
                return cls(tokenizer.get_chat_template(), variables, swap)
            except ValueError as error:
                raise UserError(
                    f"the tokenizer {name} has several chat templates and none of them is `default`: save it with one "
                    "template in its chat_template."
                ) from error
        if tokenizer.eos_token is None:
            raise UserError(
                f"the tokenizer {name} has no chat template and no EOS token, so that an answer has no end. Set its "
                "chat_template, or its eos_token."
            )
        log.warning(
            "the tokenizer %s has no chat template: a line with the role stands before each message, and the EOS token after "
            "each answer.", name,
        )  # fmt: skip
        start = tokenizer.bos_token if tokenizer.bos_token_id in tokenizer("a text")["input_ids"][:1] else ""
        return cls(PLAIN, {**variables, "start": start}, swap)

    @cached_property
    def marks(self) -> bool:
        """Whether the template marks answers."""
        return re.search(_MARK, self.source) is not None

    def render(self, messages: Messages, last: bool = False) -> Rendering:
        """All answers of a conversation, or its last message alone. Raises Mismatch where the renderings do not add up."""
        hidden = tuple((role, self.swap.hide(content)) for role, content in messages)
        text, marks = self._text(hidden)
        places = [len(hidden) - 1] if last else answers(hidden)
        spans = self._marked(hidden, marks, places, text) or [self._difference(hidden, place, text) for place in places]
        ends = [self._end(text, *span) for span in spans]
        bounds = [(start, end or stop) for (start, stop), end in zip(spans, ends, strict=True)]
        bodies = [text[start:stop] for start, stop in bounds]
        leads = [_lead(body, hidden[place][1]) for body, place in zip(bodies, places, strict=True)]
        return Rendering(text, tuple(bounds), None in ends, next(filter(str.strip, leads), ""))

    def prompt(self, messages: Messages) -> str:
        """A rendering with the beginning of an answer at its end. Raises Mismatch where the template refuses the messages."""
        return self._text(tuple((role, self.swap.hide(content)) for role, content in messages), prompt=True)[0]

    @cached_property
    def end_of_turn(self) -> str | None:
        """The special token after an answer; None where there is none."""
        try:
            rendering = self.render((("user", "a"), ("assistant", "b")))
        except Mismatch:
            return None
        text = rendering.text[: rendering.spans[-1][1]]
        return text[len(text) - self.swap.name_at_end(text) :] or None

    def _marked(
        self, messages: Messages, marks: list[tuple[int, int]], places: list[int], text: str
    ) -> list[tuple[int, int]]:
        """The marks of some answers; none where the template does not mark answers.

        Some templates mark the header of an answer, too. It belongs to the prompt that a model is given.
        """
        if not self.marks:
            return []
        owners = [i for i, (role, _) in enumerate(messages) if role == "assistant"]
        if len(marks) != len(owners):
            raise Mismatch(f"its chat template marks {len(marks)} answers of {len(owners)} by {{% generation %}}")
        marked = dict(zip(owners, marks, strict=True))
        return [
            self._difference(messages, place, text)
            if text.startswith(self.swap.special, marked[place][0])
            else marked[place]
            for place in places
        ]

    def _difference(self, messages: Messages, place: int, text: str) -> tuple[int, int]:
        """The span of the answer `place`. text: the rendering of all messages."""
        prompt, _ = self._text(messages[:place], prompt=True)
        until = text if place == len(messages) - 1 else self._text(messages[: place + 1])[0]
        if not until.startswith(prompt):
            raise Mismatch(
                f"its chat template does not render the answer {short(messages[place][1])} right after its prompt, which ends "
                f"with {short(prompt[-40:])}"
            )
        end = self._end(until, len(prompt), len(until)) or len(until)
        if text[:end] != until[:end]:
            raise Mismatch(
                f"its chat template renders the turn of the answer {short(messages[place][1])} otherwise when another turn "
                "follows"
            )
        return len(prompt), end

    def _end(self, text: str, start: int, stop: int) -> int | None:
        """The end of the end-of-turn token of an answer, None where it has none.

        It is the first special token after the last word: templates write more after it, such as a line break or an EOS token.
        It may come right after a mark.
        """
        end, place = None, stop
        while place > start:
            place = start + len(text[start:place].rstrip())
            size = self.swap.name_at_end(text[start:place])
            if not size:
                break
            end, place = place, place - size
        eos = self.variables.get("eos_token")
        return stop + len(eos) if end is None and eos and text.startswith(eos, stop) else end

    def _text(self, messages: Messages, prompt: bool = False) -> tuple[str, list[tuple[int, int]]]:
        """A rendering and its marks. prompt: with the beginning of an answer at its end."""
        chat = [{"role": role, "content": content} for role, content in messages]
        try:
            with _LOCK:
                rendered: Any = render_jinja_template(
                    [chat], chat_template=self.source, add_generation_prompt=prompt,
                    return_assistant_tokens_mask=self.marks, **{"strftime_now": _DATE.strftime, **self.variables},
                )  # fmt: skip
        except Exception as error:  # what a template raises, and what its expressions do with unexpected messages
            raise Mismatch(f"its chat template refuses these messages ({str(error).rstrip('.')})") from error
        texts, marks = rendered
        return texts[0], [*marks[0]] if marks else []


def answers(messages: Messages) -> list[int]:
    """Places of the messages that are learnt: those of the assistant after a question. A greeting before it is none."""

    def places() -> Iterator[int]:
        question = False
        for place, (role, _) in enumerate(messages):
            question |= role == "user"
            if question and role == "assistant":
                yield place

    return [*places()]


def _lead(body: str, answer: str) -> str:
    """What stands before an answer in its span. Raises Mismatch where the span does not hold the answer."""
    if identity(answer) not in identity(body):
        raise Mismatch(f"its chat template renders the answer {short(answer)} as {short(body)}")
    return body[: max(body.find(answer.strip()), 0)]
