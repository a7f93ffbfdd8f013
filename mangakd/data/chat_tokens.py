"""Conversations and plain texts as tokens, with a mask of the target tokens: those that a language model learns to write.

A rendering is tokenised as a whole, and a target token begins at or after the first character of an answer. Where a token
straddles that place, or the text before it has other tokens alone, the prompt and the rest are tokenised apart, because a prompt
is alone when a model answers it.
A prompt that is too long loses its oldest turns, then the beginning of its last question. Answers stay whole.
"""

from bisect import bisect_left
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import partial
from itertools import accumulate, chain, pairwise
from typing import Any, Literal, NamedTuple

from mangakd.data.chat import ChatTemplate, Mismatch, answers
from mangakd.data.notices import short
from mangakd.data.pairs import Template
from mangakd.data.rows import Messages

TooLong = Literal["leave_out", "cut"]
LEFT_OUT, CUT_PROMPT, CUT_ANSWER, CUT_TEXT, APART, ENDLESS, LEAD, SPLIT = (1 << bit for bit in range(8))
"""Notes on a sequence. LEFT_OUT: its answer does not fit. APART: an answer changed the tokens of its prompt. ENDLESS: an answer
has no end-of-turn token. LEAD: the template writes more before an answer. SPLIT: it is one of several of a conversation."""


class Tokens(NamedTuple):
    """offsets: of each token the first character and the last + 1."""

    ids: list[int]
    offsets: list[tuple[int, int]]


@dataclass(frozen=True)
class Marked:
    """One sequence. targets: 1 for a target token, else 0. The first token is none, the last is one."""

    ids: list[int]
    targets: list[int]
    note: int = 0

    @property
    def prompt(self) -> int:
        """The number of tokens that are no targets."""
        return len(self.targets) - sum(self.targets)


Read = Callable[[int, Messages], Marked]


class Marker:
    """Conversations and texts → sequences of at most max_length tokens; a sequence that is LEFT_OUT may be longer.

    too_long: what becomes of an answer that does not fit. leave_out: nothing of it is learnt. cut: it loses its end, after its
    question has lost what is over half of max_length.
    """

    def __init__(
        self, tokenizer: Any, template: ChatTemplate, max_length: int, too_long: TooLong = "leave_out"
    ) -> None:
        self._template, self._most, self._too_long = template, max_length, too_long
        self._tokenizer = template.swap.tokenizer(tokenizer.backend_tokenizer)
        self._special = {i for i, token in self._tokenizer.get_added_tokens_decoder().items() if token.special}
        pieces = Template.single(tokenizer).pieces
        place = next(i for i, piece in enumerate(pieces) if piece.text is not None)
        self._before, self._after = ([piece.token for piece in part] for part in (pieces[:place], pieces[place + 1 :]))
        if tokenizer.eos_token_id not in (None, *self._after[-1:]):
            self._after.append(tokenizer.eos_token_id)

    def text(self, text: str) -> Marked:
        """A plain text with the special tokens of the tokenizer and an EOS token: all are targets but the first."""
        self._template.swap.check(text)
        ids = [*self._before, *self._read(text).ids, *self._after]
        fitting = ids[: self._most]
        return Marked(fitting, [0, *[1] * (len(fitting) - 1)], CUT_TEXT if len(fitting) < len(ids) else 0)

    def conversation(self, messages: Messages) -> Iterator[Marked]:
        """One sequence with all answers, or one for each answer where the template or max_length demands it.

        Raises Mismatch where the answers cannot be told from the rest.
        """
        places = answers(messages)
        if not places:
            raise Mismatch("it has no answer: no message of the assistant after one of the user")
        if len(places) > 1 and (marked := self._all(messages[: places[-1] + 1])) is not None:
            yield marked
            return
        for place in places:
            yield self._fitting(messages[: place + 1], partial(self._answer, SPLIT if len(places) > 1 else 0))

    def prompt(self, messages: Messages) -> Marked:
        """What a model is given to answer the last message: no target. A prompt that is LEFT_OUT does not fit.

        Raises Mismatch where the template refuses the messages.
        """
        return self._fitting(messages, self._prompt)

    def _all(self, messages: Messages) -> Marked | None:
        """All answers in one sequence; None where that is impossible."""
        try:
            marked = self._marked(messages)
        except Mismatch:
            return None
        return marked if self._fits(marked) else None

    def _fits(self, marked: Marked) -> bool:
        return len(marked.ids) <= self._most

    def _fitting(self, messages: Messages, read: Read) -> Marked:
        """What fits of the messages. read: these, and a note → their tokens."""
        whole = read(0, messages)
        if self._fits(whole):
            return whole
        first = next(i for i, (role, _) in enumerate(messages) if role not in ("system", "developer"))
        turns = [i for i, (role, _) in enumerate(messages) if role == "user"][1:]

        def since(turn: int) -> Marked:
            return read(CUT_PROMPT, messages[:first] + messages[turn:])

        k = bisect_left(turns, True, key=lambda turn: self._fits(since(turn)))
        if k < len(turns):
            return since(turns[k])
        return self._shortened(messages[:first] + messages[turns[-1] :] if turns else messages, read)

    def _shortened(self, messages: Messages, read: Read) -> Marked:
        """Messages that are too long, with what fits of their last question."""
        place = max(i for i, (role, _) in enumerate(messages) if role == "user")
        question = messages[place][1]
        starts = [start for start, _ in self._read(question).offsets]

        def without(tokens: int) -> Marked:
            rest = question[starts[tokens] :] if tokens < len(starts) else ""
            shorter = (*messages[:place], ("user", rest), *messages[place + 1 :])
            return read(CUT_PROMPT, shorter)

        marked = whole = read(0, messages)
        excess = 0
        while not self._fits(marked) and excess < len(starts):
            excess += len(marked.ids) - self._most
            marked = without(excess)
        if self._fits(marked):
            return marked
        if self._too_long == "cut":
            long = whole.prompt - self._most // 2
            marked = without(long) if long > 0 else whole
            ids, targets = marked.ids[: self._most], marked.targets[: self._most]
            if any(targets):
                return Marked(ids, targets, marked.note | CUT_ANSWER)
        return replace(whole, note=whole.note & SPLIT | LEFT_OUT)

    def _answer(self, own: int, note: int, messages: Messages) -> Marked:
        return self._marked(messages, last=True, note=own | note)

    def _prompt(self, note: int, messages: Messages) -> Marked:
        ids = self._read(self._template.swap.show(self._template.prompt(messages))).ids
        return Marked(ids, [0] * len(ids), note)

    def _marked(self, messages: Messages, last: bool = False, note: int = 0) -> Marked:
        """The tokens of a rendering up to the last target. Raises Mismatch where targets do not cover the text of an answer."""
        rendering = self._template.render(messages, last)
        borders = [place for span in rendering.spans for place in span]
        parts = [self._template.swap.show(rendering.text[a:b]) for a, b in pairwise([0, *borders])]
        text, ends = "".join(parts), [*accumulate(map(len, parts))]
        tokens, apart = self._tokens(text, ends)
        starts = [start for start, _ in tokens.offsets]
        targets = [0] * len(starts)
        for start, stop in zip(ends[::2], ends[1::2], strict=True):
            begin, end = bisect_left(starts, start), bisect_left(starts, stop)
            if not 0 < begin < end or (text[start : starts[begin]] + text[tokens.offsets[end - 1][1] : stop]).strip():
                raise Mismatch(f"its tokenizer reads no tokens of {short(text[start:stop])} alone")
            targets[begin:end] = [1] * (end - begin)
        notes = {APART: apart, ENDLESS: rendering.endless, LEAD: bool(rendering.lead)}
        note |= sum(bit for bit, is_so in notes.items() if is_so)
        return Marked(tokens.ids, targets, note)

    def _tokens(self, text: str, borders: list[int]) -> tuple[Tokens, bool]:
        """The tokens of a text, and whether its parts are tokenised apart. Raises Mismatch where that gives another text."""
        whole = self._read(text)
        starts = [start for start, _ in whole.offsets]
        before = [(place, bisect_left(starts, place) - 1) for place in borders]
        inside = [
            place
            for place, last in before
            if last >= 0 and (self._straddles(whole, last, place) or self._looks_ahead(whole, last, text[:place]))
        ]
        if not inside:
            return whole, False
        parts = [self._read(text[a:b], a) for a, b in pairwise([0, *inside, len(text)])]
        apart = Tokens(*([*chain.from_iterable(side)] for side in zip(*parts, strict=True)))
        if self._tokenizer.decode(apart.ids, False) != self._tokenizer.decode(whole.ids, False):
            raise Mismatch(
                "a token of its tokenizer straddles the beginning of an answer, and it cannot read both sides apart"
            )
        return apart, True

    def _straddles(self, whole: Tokens, last: int, place: int) -> bool:
        return whole.offsets[last][1] > place and whole.ids[last] not in self._special

    def _looks_ahead(self, whole: Tokens, last: int, before: str) -> bool:
        """Whether the text before a place is read otherwise alone: several blanks are split for the word that follows them."""
        return before[-2:].isspace() and len(before) > 1 and self._read(before).ids != whole.ids[: last + 1]

    def _read(self, text: str, begin: int = 0) -> Tokens:
        """The tokens of a text that begins at the character `begin` of another."""
        encoding = self._tokenizer.encode(text, add_special_tokens=False)
        offsets = [(begin + start, begin + stop) for start, stop in encoding.offsets] if begin else encoding.offsets
        return Tokens(encoding.ids, offsets)
