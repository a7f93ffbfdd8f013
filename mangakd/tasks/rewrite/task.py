"""Rewriting: an encoder–decoder writes the last turn of a conversation anew, so that it stands alone. `task=rewrite`."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, ClassVar

from torch import Tensor

from mangakd.core.errors import UserError
from mangakd.core.outputs import Batch
from mangakd.core.spec import Head, Kind
from mangakd.data.encoded import EncodedSplit, Tokenise
from mangakd.data.rows import Columns, Rows
from mangakd.data.seq2seq import TURNS, SourceOptions, end_of
from mangakd.data.source import Corpus
from mangakd.evaluation.judge import Judge
from mangakd.evaluation.served import Served
from mangakd.losses.tokens import TokensLoss
from mangakd.tasks.base import Model, Samples, Task
from mangakd.tasks.meters import Meters
from mangakd.tasks.rewrite import encode
from mangakd.tasks.rewrite.judge import RewriteJudge
from mangakd.tasks.rewrite.measures import COPY, HUMAN
from mangakd.tasks.rewrite.search import Search
from mangakd.tasks.rewrite.served import served
from mangakd.tasks.rewrite.texts import Options, Scorer, first_rows, samples
from mangakd.tasks.token_meters import meters
from mangakd.tasks.token_sums import sums_of


@dataclass
class Rewrite(Task):
    """A row is a conversation with its rewrite, or an input with its target (encode.py).

    separator, template: how the turns become the text that the encoder reads (data/seq2seq.py). max_target_length: tokens of a
    rewrite. min_new_tokens: of a text that a model writes. generate: how many rows of test, and of validation, models write texts
    for; None for all, 0 for none. generate_every: the student also writes them on validation, every so many epochs; 0 for never.
    expansions: texts that a model writes for a row, the best different ones of `beams` beams. search: what they are searched in.
    """

    units: ClassVar[tuple[str, ...]] = ("targets",)
    optional: ClassVar[tuple[str, ...]] = tuple(encode.COLUMNS)
    compares: ClassVar[bool] = True
    tokenised_early: ClassVar[bool] = True
    name: str = "rewrite"
    kind: Kind = "tokens"
    judge: Judge = field(default_factory=RewriteJudge)
    monitor: str = "perplexity"
    separator: str = " ||| "
    template: str = TURNS
    max_target_length: int = 64
    min_new_tokens: int = 0
    generate: int | None = None
    generate_every: int = 0
    expansions: int = 1
    beams: int = 1
    search: Search = field(default_factory=Search)

    def __post_init__(self) -> None:
        self._source = SourceOptions(self.separator, self.template, self.max_target_length)
        self._writing = Options(self.expansions, self.beams, self.max_target_length, self.min_new_tokens)
        for name, none in (("generate", "0 for none"), ("generate_every", "0 for never")):
            value = getattr(self, name)
            if value is not None and (not isinstance(value, int) or isinstance(value, bool) or value < 0):
                raise UserError(f"task.{name}={value} must be a whole number, {none}.")
        if self.generate_every and self.generate == 0:
            raise UserError(
                f"task.generate_every={self.generate_every} and task.generate=0, no rows: raise task.generate."
            )
        if self.monitor in self.judge.generated and self.generate_every != 1:
            raise UserError(
                f"task.monitor={self.monitor} is a score of texts, and task.generate_every={self.generate_every} writes none "
                "after some epochs: set task.generate_every=1, or task.monitor=perplexity."
            )

    @property
    def columns(self) -> Columns:
        return encode.COLUMNS

    def prepare(self, corpus: Corpus) -> Corpus:
        """With the rows that have a target alone: the others have nothing to learn from or to be compared with.

        Raises UserError for a row that holds no text to rewrite, or two of them, and for a split without a target.
        """
        for rows in corpus.splits.values():
            encode.check(rows)
        splits = {name: encode.learnable(name, rows) for name, rows in corpus.splits.items()}
        for name in ("validation", "test") if self.generate != 0 else ():
            self.search.index(splits[name])
        return replace(corpus, **splits, unlabelled=corpus.unlabelled.take([]))  # type: ignore[arg-type]

    def head(self, corpus: Corpus, tokenizer: Any) -> Head:
        """Each model's vocabulary is as large as the model has it. Raises UserError for a tokenizer without EOS or padding."""
        end_of(tokenizer)
        return Head("tokens", 0, source=True)

    def encode(self, rows: Rows, head: Head, tokenise: Tokenise) -> EncodedSplit:
        return encode.encoded(rows, tokenise, self._source)

    def sequences(self, rows: Rows) -> Iterable[Sequence[tuple[str, ...]]]:
        """The source once for each of its targets."""
        sources = zip(encode.turns(rows), encode.targets(rows), strict=True)
        return ([(self._source.text(turns),)] * len(targets) for turns, targets in sources)

    def shown(self, rows: Rows) -> list[str]:
        return encode.utterances(rows)

    def lists(self, rows: Rows) -> dict[str, list[list[str]]]:
        return {
            "history": [[turn for turn in history if turn.strip()] for history in rows["history"]],
            "utterance": [[text] for text in encode.utterances(rows)],
            "rewrite": [[*texts] for texts in encode.targets(rows)],
            "source": [[name] if name else [] for name in rows["source"]],
        }

    def own_loss(self) -> TokensLoss:
        return TokensLoss(alpha=0.0)

    def ask(self, model: Model, batch: Batch, teacher: Model | None = None) -> dict[str, Tensor]:
        """Sums over the target tokens of each row (tasks/token_sums.py)."""
        return sums_of(model, batch, teacher)

    def samples(self, rows: Rows, split: EncodedSplit, tokenizer: Any, max_length: int) -> Samples | None:
        if self.generate == 0:
            return None
        return samples(split, first_rows(split, self.generate), Scorer.of(rows, self.search), tokenizer, self._writing)

    def references(self, rows: Rows, split: EncodedSplit) -> dict[str, dict[str, Tensor]]:
        """What needs no model: the utterance as it is, and the targets of the data."""
        if self.generate == 0:
            return {}
        scorer, places = Scorer.of(split.rows_of(rows), self.search), first_rows(split, self.generate)
        systems = {COPY: lambda i: [scorer.utterances[i]], HUMAN: lambda i: scorer.targets[i]}
        return {name: scorer.answers(places, texts) for name, texts in systems.items()}

    def served(self, rows: Rows) -> Served:
        return served(rows, self.search, self._source)

    def meters(self, head: Head, teacher: bool, together: bool) -> Meters:
        return meters(teacher, together)
