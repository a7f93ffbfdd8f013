"""`ModelSpec`: the sizes and names of a model that losses, preflight and providers need, without its weights."""

from dataclasses import dataclass
from typing import Any, Literal

Problem = Literal["single_label", "multi_label"]
Kind = Literal["labels", "score", "vector", "tokens"]


@dataclass(frozen=True)
class Head:
    """What a model's head answers with: the one vocabulary for "kind of task".

    kind: labels (logits of C classes), score (one number a sequence), vector (an embedding), tokens (logits of a vocabulary).
    outputs: C, 1, D or V. names: of the labels, in the head's order. several: any set of labels holds at once, each by a sigmoid.
    """

    kind: Kind
    outputs: int
    names: tuple[str, ...] = ()
    several: bool = False


@dataclass(frozen=True)
class ModelSpec:
    """layers L, hidden size D, heads H, label names (C of them), vocabulary identity (a digest of its content)."""

    name: str
    layers: int
    hidden: int
    heads: int
    labels: tuple[str, ...]
    problem: Problem = "single_label"
    vocabulary: str = ""

    @property
    def classes(self) -> int:
        return len(self.labels)

    @classmethod
    def from_config(cls, config: Any, name: str, vocabulary: str = "") -> "ModelSpec":
        """From a Hugging Face config; its attribute map hides that DistilBERT calls these `dim` and `n_layers`."""
        labels = tuple(config.id2label[i] for i in range(config.num_labels))
        multi = getattr(config, "problem_type", None) == "multi_label_classification"
        return cls(
            name=name,
            layers=config.num_hidden_layers,
            hidden=config.hidden_size,
            heads=config.num_attention_heads,
            labels=labels,
            problem="multi_label" if multi else "single_label",
            vocabulary=vocabulary,
        )

    def sizes(self) -> str:
        """For messages: `student bert (4 layers, hidden 312, 12 heads)`."""
        return f"{self.name} ({self.layers} layers, hidden {self.hidden}, {self.heads} heads)"
