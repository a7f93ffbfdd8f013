"""Responses: a language model that answers a conversation, or goes on with a text. `task=response`."""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any, ClassVar

from torch import Tensor

from mangakd.core.outputs import TARGETS, Batch
from mangakd.core.spec import Head, Kind
from mangakd.core.token_logits import FromStates
from mangakd.data.chat_tokens import TooLong
from mangakd.data.chats import ChatOptions
from mangakd.data.encoded import EncodedSplit, Tokenise
from mangakd.data.rows import Columns, Rows
from mangakd.data.source import Corpus
from mangakd.evaluation.judge import Judge
from mangakd.losses.tokens import TokensLoss
from mangakd.tasks.base import Model, Task
from mangakd.tasks.meters import Meters
from mangakd.tasks.response.encode import COLUMNS, chats_of, encoded, shown
from mangakd.tasks.response.judge import ResponseJudge
from mangakd.tasks.response.meters import meters
from mangakd.tasks.response.scores import row_sums


@dataclass
class Response(Task):
    """A row is a prompt with its answer, a conversation, or a plain text (encode.py).

    system: the system prompt of rows that have none. question: how a question is written with its passages. template: variables
    of the chat template. too_long: what becomes of an answer that does not fit into data.max_length, leave_out or cut.
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

    def __post_init__(self) -> None:
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

    def shown(self, rows: Rows) -> list[str]:
        return shown(rows)

    def own_loss(self) -> TokensLoss:
        return TokensLoss(alpha=0.0)

    def ask(self, model: Model, batch: Batch, teacher: Model | None = None) -> dict[str, Tensor]:
        """Sums over the target tokens of each row (scores.py)."""
        own, targets = model(batch).tokens, batch["student"][TARGETS]
        assert isinstance(own, FromStates)
        other = None if teacher is None else teacher(batch).tokens
        return row_sums(own, batch["next"], targets.nonzero()[:, 0], len(targets), other)

    def meters(self, head: Head, teacher: bool, together: bool) -> Meters:
        return meters(teacher, together)
