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

STACKS = (("num_layers", "num_decoder_layers"), ("encoder_layers", "decoder_layers"))
"""Entries of configs that hold the layers of an encoder and of a decoder: of T5 and its kin, of BART and its kin."""


@dataclass(frozen=True)
class Head:
    """What a model's head answers with: the one vocabulary for "kind of task".

    kind: labels (logits of C classes), score (a number; a regression of several values has several), vector (an embedding),
    tokens (logits of a vocabulary). outputs: C, 1, D or V; 0 for as many as the model has (`is_models_own`), which is what a task
    asks for, since student and teacher may differ in them. names: of the outputs, in the head's order; empty if nobody named
    them. several: any set of labels holds at once, each by a sigmoid. source: the tokens follow a source, which an encoder of
    their own model reads (T5, BART); without it a decoder reads all (Llama).
    """

    kind: Kind
    outputs: int
    names: tuple[str, ...] = ()
    several: bool = False
    source: bool = False

    def __post_init__(self) -> None:
        if self.kind not in KINDS or len(self.names) not in (0, self.outputs):
            raise ValueError(f"there is no head of {self.outputs} {self.kind} with the names {list(self.names)}")
        if self.source and self.kind != "tokens":
            raise ValueError(f"a head of {self.kind} follows no source; tokens do")

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
            return "a vector" if self.kind == "vector" else f"tokens of a vocabulary{self._after}"
        what = {"labels": "labels", "score": "scores", "vector": "dimensions", "tokens": "tokens"}[self.kind]
        names = f" ({', '.join(self.names[:4])}{', …' if len(self.names) > 4 else ''})" if self.names else ""
        return f"{self.outputs} {what}{names}{', any number of them' if self.several else ''}{self._after}"

    @property
    def _after(self) -> str:
        return " after a source" if self.source else ""


def numbered(outputs: int) -> tuple[str, ...]:
    """LABEL_0, LABEL_1, …: the names that transformers gives to outputs that nobody named."""
    return tuple(f"LABEL_{i}" for i in range(outputs))


@dataclass(frozen=True)
class ModelSpec:
    """layers L, hidden size D, heads H, vocabulary identity (a digest of its content), and the model's head.

    encoder_layers: how many of the layers are an encoder's, the first ones; a decoder's follow. 0 for models of one stack.
    """

    name: str
    layers: int
    hidden: int
    heads: int
    head: Head
    vocabulary: str = ""
    encoder_layers: int = 0

    @classmethod
    def from_config(cls, config: Any, name: str, head: Head, vocabulary: str = "") -> "ModelSpec":
        """From a Hugging Face config; its attribute map hides that DistilBERT calls these `dim` and `n_layers`.

        The head is given: every config names labels, that of a language model too.
        """
        encoder, decoder = stacks(config) if head.source else (0, config.num_hidden_layers)
        return cls(
            name=name,
            layers=encoder + decoder,
            encoder_layers=encoder,
            hidden=config.hidden_size,
            heads=config.num_attention_heads,
            head=head,
            vocabulary=vocabulary,
        )

    def sizes(self) -> str:
        """For messages: `student bert (4 layers, hidden 312, 12 heads)`; the name alone where there is no model."""
        if not self.layers:
            return self.name
        layers = f"{self.layers} layers"
        if self.encoder_layers:
            layers = f"{self.encoder_layers} + {self.layers - self.encoder_layers} layers"
        return f"{self.name} ({layers}, hidden {self.hidden}, {self.heads} heads)"


def stacks(config: Any) -> tuple[int, int]:
    """Layers of encoder and decoder. Raises KeyError for a config that does not say them as T5 or as BART does."""
    encoder, decoder = stack_entries(config)
    return getattr(config, encoder), getattr(config, decoder)


def stack_entries(config: Any) -> tuple[str, str]:
    """The entries of a config that hold the layers of encoder and decoder. Raises KeyError where there are none."""
    for entries in STACKS:
        if all(isinstance(getattr(config, entry, None), int) for entry in entries):
            return entries
    raise KeyError(f"{config.model_type} has none of {STACKS}")
