"""`Head` and `ModelSpec`: what losses, preflight and providers need to know of a model, without its weights."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, get_args

Kind = Literal["labels", "score", "vector", "tokens"]
KINDS: tuple[Kind, ...] = get_args(Kind)
PROBLEM_TYPES: dict[str, tuple[Kind, bool]] = {
    "single_label_classification": ("labels", False),
    "multi_label_classification": ("labels", True),
    "regression": ("score", False),
}
"""`problem_type` of a Hugging Face config → kind and `several` of the head."""


@dataclass(frozen=True)
class Head:
    """What a model's head answers with: the one vocabulary for "kind of task".

    kind: labels (logits of C classes), score (a number; a regression of several values has several), vector (an embedding),
    tokens (logits of a vocabulary). outputs: C, 1, D or V; 0 for as many as the model has (`is_models_own`), which is what a task
    asks for, since student and teacher may differ in them. names: of the outputs, in the head's order; empty if nobody named
    them. several: any set of labels holds at once, each by a sigmoid.
    """

    kind: Kind
    outputs: int
    names: tuple[str, ...] = ()
    several: bool = False

    def __post_init__(self) -> None:
        if self.kind not in KINDS or len(self.names) not in (0, self.outputs):
            raise ValueError(f"there is no head of {self.outputs} {self.kind} with the names {list(self.names)}")

    @classmethod
    def of_labels(cls, names: Sequence[str], several: bool = False) -> "Head":
        """One label of C, or with `several` any set of them."""
        return cls("labels", len(names), tuple(names), several)

    @classmethod
    def read(cls, content: Mapping[str, Any]) -> "Head":
        """From JSON, where it was written as `asdict(head)`. Raises KeyError, TypeError or ValueError for what is none."""
        return cls(**{**content, "names": tuple(content["names"])})

    @classmethod
    def of_problem(cls, problem_type: str | None, names: Sequence[str]) -> "Head":
        """A trained sequence classifier's head, as transformers reads its config: one output without a type is a regression.

        names: those of `id2label`. LABEL_0, LABEL_1, … come from transformers, which writes them into every config: they name
        nothing. Raises KeyError for a type that transformers does not know.
        """
        guess = "regression" if len(names) == 1 else "single_label_classification"
        kind, several = PROBLEM_TYPES[problem_type or guess]
        return cls(kind, len(names), () if tuple(names) == numbered(len(names)) else tuple(names), several)

    @property
    def problem_type(self) -> str | None:
        """For a Hugging Face config; None for a head that is no sequence classifier's."""
        return next((name for name, kind in PROBLEM_TYPES.items() if kind == (self.kind, self.several)), None)

    @property
    def is_models_own(self) -> bool:
        """Whether the model, not the task, decides the number of outputs: the width of a vector, the size of a vocabulary."""
        return self.kind in ("vector", "tokens")

    def __str__(self) -> str:
        """For messages: `3 labels (order, refund, …), any number of them`, `a score`."""
        if self.kind == "score" and self.outputs == 1:
            return "a score"
        if self.is_models_own and not self.outputs:
            return "a vector" if self.kind == "vector" else "tokens of a vocabulary"
        what = {"labels": "labels", "score": "scores", "vector": "dimensions", "tokens": "tokens"}[self.kind]
        names = f" ({', '.join(self.names[:4])}{', …' if len(self.names) > 4 else ''})" if self.names else ""
        return f"{self.outputs} {what}{names}{', any number of them' if self.several else ''}"


def numbered(outputs: int) -> tuple[str, ...]:
    """LABEL_0, LABEL_1, …: the names that transformers gives to outputs that nobody named."""
    return tuple(f"LABEL_{i}" for i in range(outputs))


@dataclass(frozen=True)
class ModelSpec:
    """layers L, hidden size D, heads H, vocabulary identity (a digest of its content), and the model's head."""

    name: str
    layers: int
    hidden: int
    heads: int
    head: Head
    vocabulary: str = ""

    @classmethod
    def from_config(cls, config: Any, name: str, head: Head, vocabulary: str = "") -> "ModelSpec":
        """From a Hugging Face config; its attribute map hides that DistilBERT calls these `dim` and `n_layers`.

        The head is given: every config names labels, that of a language model too.
        """
        return cls(
            name=name,
            layers=config.num_hidden_layers,
            hidden=config.hidden_size,
            heads=config.num_attention_heads,
            head=head,
            vocabulary=vocabulary,
        )

    def sizes(self) -> str:
        """For messages: `student bert (4 layers, hidden 312, 12 heads)`; the name alone where there is no model."""
        return (
            self.name
            if not self.layers
            else f"{self.name} ({self.layers} layers, hidden {self.hidden}, {self.heads} heads)"
        )
