"""Responses: a language model that answers a conversation, or goes on with a text. `task=response`."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, ClassVar

from torch import Tensor

from mangakd.core.errors import UserError
from mangakd.core.outputs import Batch
from mangakd.core.spec import Head, Kind
from mangakd.data.chat import ChatTemplate
from mangakd.data.chat_tokens import Marked, Marker, TooLong
from mangakd.data.chats import ChatOptions, sequences
from mangakd.data.encoded import EncodedSplit, Tokenise
from mangakd.data.rows import Columns, Rows
from mangakd.data.source import Corpus
from mangakd.evaluation.generations import Text
from mangakd.evaluation.judge import Judge
from mangakd.losses.tokens import TokensLoss
from mangakd.models.encoder import Encoder
from mangakd.models.generation import Sampling, Writer
from mangakd.tasks.base import Author, Model, OwnText, Samples, Task
from mangakd.tasks.meters import Meters
from mangakd.tasks.response.encode import COLUMNS, chats_of, encoded, shown
from mangakd.tasks.response.generations import prompts_of, write_answers
from mangakd.tasks.response.judge import ResponseJudge
from mangakd.tasks.response.own_text import own_text
from mangakd.tasks.token_meters import meters
from mangakd.tasks.token_sums import sums_of


@dataclass
class Response(Task):
    """A row is a prompt with its answer, a conversation, or a plain text (encode.py).

    system: the system prompt of rows that have none. question: how a question is written with its passages. template: variables
    of the chat template. too_long: what becomes of an answer that does not fit into data.max_length, leave_out or cut.
    generate: to how many test prompts the models write answers for the report, one greedy and one drawn as `sampling` says.
    """

    units: ClassVar[tuple[str, ...]] = ("targets",)
    optional: ClassVar[tuple[str, ...]] = tuple(COLUMNS)
    compares: ClassVar[bool] = True
    tokenised_early: ClassVar[bool] = True
    name: str = "response"
    kind: Kind = "tokens"
    judge: Judge = field(default_factory=ResponseJudge)
    monitor: str = "perplexity"
    system: str = ""
    question: str = "{context}\n\n{prompt}"
    template: Mapping[str, Any] = field(default_factory=dict)
    too_long: TooLong = "leave_out"
    generate: int = 0
    sampling: Sampling = field(default_factory=lambda: Sampling(1.0, max_new_tokens=128))

    def __post_init__(self) -> None:
        if not isinstance(self.generate, int) or self.generate < 0:
            raise UserError(f"task.generate={self.generate} must be a whole number of test rows, 0 for none.")
        self._options = ChatOptions(self.template, self.too_long)

    @property
    def columns(self) -> Columns:
        return COLUMNS

    def prepare(self, corpus: Corpus) -> Corpus:
        """With plain texts alone in place of rows without labels: a prompt without its answer has nothing to learn.

        Raises UserError for a row that holds none or several of messages, prompt with answer, and text.
        """
        for rows in corpus.splits.values():
            for _ in chats_of(rows, self.system, self.question):
                pass
        texts = [i for i, text in enumerate(corpus.unlabelled["text"]) if text.strip()]
        return replace(corpus, unlabelled=corpus.unlabelled.take(texts))

    def head(self, corpus: Corpus, tokenizer: Any) -> Head:
        """Each model's vocabulary is as large as the model has it."""
        return Head("tokens", 0)

    def encode(self, rows: Rows, head: Head, tokenise: Tokenise) -> EncodedSplit:
        return encoded(rows, tokenise, self._options, self.system, self.question)

    def marked(self, rows: Rows, tokenizer: Any, max_length: int) -> list[Marked]:
        marker = Marker(tokenizer, ChatTemplate.of(tokenizer, self.template), max_length, self.too_long)
        chats = chats_of(rows, self.system, self.question)
        return [each for i, chat in enumerate(chats) for each in sequences(marker, rows, i, chat)]

    def shown(self, rows: Rows) -> list[str]:
        return shown(rows)

    def own_loss(self) -> TokensLoss:
        return TokensLoss(alpha=0.0)

    def ask(self, model: Model, batch: Batch, teacher: Model | None = None) -> dict[str, Tensor]:
        """Sums over the target tokens of each row (tasks/token_sums.py)."""
        return sums_of(model, batch, teacher)

    def author(self, tokenizer: Any, max_length: int) -> Author:
        ends = self._ends(tokenizer)

        def write(student: Encoder, batch: Batch, sampling: Sampling, seeds: Sequence[int]) -> OwnText:
            writer = Writer.of(student.model, tokenizer, ends)
            return own_text(student, batch, sampling, seeds, writer, max_length)

        return write

    def samples(self, rows: Rows, split: EncodedSplit, tokenizer: Any, max_length: int) -> Samples | None:
        if not self.generate:
            return None
        prompts, ends = prompts_of(rows, shown(rows), split, tokenizer, self.generate), self._ends(tokenizer)

        def write(model: Encoder, advance: Callable[[int], object]) -> list[Mapping[str, Text]]:
            writer = Writer.of(model.model, tokenizer, ends)
            return write_answers(model, prompts, tokenizer, writer, self.sampling, max_length, advance)

        return Samples([prompt.example for prompt in prompts], 2, write)

    def _ends(self, tokenizer: Any) -> list[int]:
        """The token that ends an answer, where the chat template writes one."""
        end = ChatTemplate.of(tokenizer, self.template).end_of_turn
        return [] if end is None else [tokenizer.convert_tokens_to_ids(end)]

    def meters(self, head: Head, teacher: bool, together: bool) -> Meters:
        return meters(teacher, together)
