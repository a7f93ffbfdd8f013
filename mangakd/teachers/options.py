"""What conf/teacher holds, and the context in which options become a provider.

A teacher kind is an options class (its `_target_`) with `gives` and `provider`; everything it needs from the run comes in a
`TeacherContext`, so a kind never sees the config or the trainer.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, ClassVar

import torch

from mangakd.core.errors import UserError
from mangakd.core.requires import Need
from mangakd.core.spec import Head, ModelSpec
from mangakd.core.token_logits import FromStates, TokenAnswer
from mangakd.data.encoded import EncodedSplit
from mangakd.data.sequence_texts import SequenceTexts
from mangakd.models.labels import label_name
from mangakd.models.late import AS_IT_IS, Interaction
from mangakd.teachers.base import TeacherProvider

CALIBRATE = (None, "temperature")
FIT_MODES = ("auto", "never", "always")
MOST_SEEDS = 1_000_000


@dataclass(frozen=True)
class FitOptions:
    """Fine-tuning of a teacher. mode: auto (only where the head is new), never, always. seed: see `member`."""

    mode: str = "auto"
    epochs: int = 5
    lr: float = 1e-4
    seed: int = 0

    def __post_init__(self) -> None:
        if self.mode not in FIT_MODES:
            raise UserError(f"teacher.fit.mode={self.mode!r}; known: {', '.join(FIT_MODES)}.")
        if self.epochs < 1 or self.lr <= 0:
            raise UserError(f"teacher.fit.epochs={self.epochs} and teacher.fit.lr={self.lr} must be above 0.")
        if not isinstance(self.seed, int) or not 0 <= self.seed <= MOST_SEEDS:
            raise UserError(f"teacher.fit.seed={self.seed} must be a whole number from 0 to {MOST_SEEDS:,}.")

    def member(self, member: "Member") -> "Member":
        """The member as it is fine-tuned: 1,000 · seed is added to its own seed, so that no member of an ensemble comes back
        under another one."""
        return replace(member, seed=member.seed + 1000 * self.seed)


@dataclass(frozen=True)
class Member:
    """One model behind a teacher: where it comes from, the seed of its fine-tuning, and how it reads a query and a document."""

    path: str
    seed: int
    interaction: Interaction = AS_IT_IS

    def __post_init__(self) -> None:
        if not isinstance(self.path, str) or not self.path.strip():
            value = f"{'null' if self.path is None else self.path} is {'no text' if self.path else 'empty'}"
            raise UserError(
                f"teacher.path={value}: give it (or each of teacher.paths) a folder, a hub id, or `embedded`."
            )


@dataclass
class TeacherContext:
    """head: the task's. load: a fine-tuned member, in memory or on disk. splits: the run's data, teacher side tokenised.

    progress: opens a bar. precision: of a forward outside a fit, as in `hardware.precision`. texts: those of each split of
    `splits`, for answers that are found by text.
    """

    head: Head
    load: Callable[[Member], Any]  # Encoder | teachers.local.Unread
    splits: dict[str, EncodedSplit]
    cache: Path
    device: torch.device
    batch_size: int
    progress: Callable[[str, int], Any]
    precision: str = "32-true"
    texts: Mapping[str, SequenceTexts] = field(default_factory=dict)


@dataclass(kw_only=True)
class TeacherOptions(ABC):
    """path: hub id, folder or `embedded`. labels: names of the outputs of its head, where its config has none. interaction: how
    it reads a query and a document (models/late.py); null: as its folder. calibrate, smooth: of the probabilities of a classifier
    (calibrated.py). reads_new_texts: whether a model answers while the
    student is trained, so that any text can be read."""

    reads_new_texts: ClassVar[bool] = True
    path: str
    labels: Sequence[Any] | None = None
    interaction: Any = None
    fit: FitOptions = field(default_factory=FitOptions)
    calibrate: str | None = None
    smooth: float = 0.0

    def __post_init__(self) -> None:
        if self.calibrate not in CALIBRATE:
            raise UserError(
                f"teacher.calibrate={self.calibrate}; known: temperature, or null for the teacher's own probabilities."
            )
        if isinstance(self.smooth, bool) or not isinstance(self.smooth, int | float) or not 0 <= self.smooth < 1:
            raise UserError(
                f"teacher.smooth={self.smooth} must be from 0 to below 1: no probability stays above 1 − teacher.smooth."
            )
        if not isinstance(self.fit, FitOptions):
            self.fit = FitOptions(**self.fit)
        if self.labels is None:
            return
        if not isinstance(self.labels, list | tuple):
            raise UserError(
                f"teacher.labels={self.labels} must be a list of all names, in the order of the head: teacher.labels=[…,…]."
            )
        try:
            self.labels = [label_name(label) for label in self.labels]
        except UserError as error:
            raise UserError(f"teacher.labels={list(self.labels)}: {error}") from error
        if len(set(self.labels)) != len(self.labels):
            raise UserError(f"teacher.labels={self.labels} names a label twice.")

    @property
    def reads(self) -> Interaction:
        return Interaction.of(self.interaction, "teacher.interaction")

    @property
    @abstractmethod
    def models(self) -> list[Member]:
        """The models behind this teacher; none where a file holds the answers of a model that this run does not have."""

    @abstractmethod
    def gives(self, spec: ModelSpec) -> Need:
        """What its provider will give, known before anything is loaded."""

    def answer(self, spec: ModelSpec) -> TokenAnswer | None:
        """How it answers for the tokens of a language model; None for other heads. spec: of the model."""
        return TokenAnswer(FromStates) if spec.head.kind == "tokens" else None

    def head(self, task: Head, models: Sequence[Head]) -> Head:
        """Of the answers. task: the head that the task asks for. models: those of `models` in their order.

        Raises UserError where this teacher cannot answer for such a head.
        """
        return models[0] if models else task

    def check(self, texts: Mapping[str, SequenceTexts]) -> None:  # noqa: B027
        """texts: those of each split. Raises UserError where this teacher cannot answer some; models answer all."""

    @abstractmethod
    def provider(self, context: TeacherContext) -> TeacherProvider:
        """Load, and where needed fill a store. All ranks call it together."""
