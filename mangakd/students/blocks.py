"""The parts of encoders built as BERT is: embeddings, a list of layers with a norm after each sum, a head of two linear maps."""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

from torch import nn

from mangakd.core.errors import UserError

FAMILIES = (("bert", "distilbert"), ("roberta", "xlm-roberta", "camembert"))
"""Model types whose weights mean the same. RoBERTa's positions begin behind its padding token."""


SIZES: dict[str, Callable[[Any], int]] = {
    "hidden_size": lambda config: config.hidden_size,
    "num_attention_heads": lambda config: config.num_attention_heads,
    "num_hidden_layers": lambda config: config.num_hidden_layers,
    "intermediate_size": lambda config: getattr(config, "intermediate_size", None) or config.hidden_dim,
}
"""None of a student's may be above the teacher's, which has nothing for the rest."""


class Block(NamedTuple):
    """A layer. norm_1, norm_2: behind the sums of its attention and of its feed-forward network."""

    query: nn.Linear
    key: nn.Linear
    value: nn.Linear
    out: nn.Linear
    norm_1: nn.LayerNorm
    up: nn.Linear
    activation: Any
    down: nn.Linear
    norm_2: nn.LayerNorm


class Parts(NamedTuple):
    """tables: name → embeddings. head: the last two linear maps of a classifier; None for a model without a head."""

    tables: dict[str, nn.Embedding]
    norm: nn.LayerNorm
    blocks: list[Block]
    head: tuple[nn.Linear, nn.Linear] | None


def check_families(student: Any, teacher: Any, key: str) -> None:
    """Raises UserError for configs of two architectures, or of one that is not built as BERT is, and for a larger student."""
    pair = {student.model_type, teacher.model_type}
    if not any(pair <= {*family} for family in FAMILIES):
        known = " or ".join(", ".join(family) for family in FAMILIES)
        raise UserError(
            f"{key}=teacher makes a {student.model_type} of a {teacher.model_type}; both must be of one family: {known}. Set "
            f"{key}=random."
        )
    if getattr(student, "is_decoder", False):
        raise UserError(f"{key}=teacher fits encoders: leave is_decoder out of student.sizes.")
    for name, of in SIZES.items():
        own, taught = of(student), of(teacher)
        if own > taught:
            raise UserError(
                f"{key}=teacher makes a smaller model, and student.sizes.{name}={own} is above the teacher's {taught}. Lower it, "
                f"or set {key}=random."
            )


def parts_of(model: Any) -> Parts:
    """model: of a type in FAMILIES, with a head or without."""
    base = model.base_model
    tables = {name: each for name, each in base.embeddings.named_children() if isinstance(each, nn.Embedding)}
    layers: Sequence[Any] = base.transformer.layer if model.config.model_type == "distilbert" else base.encoder.layer
    blocks = [(_distilbert if model.config.model_type == "distilbert" else _bert)(layer) for layer in layers]
    linear = [module for module in model.modules() if isinstance(module, nn.Linear)]
    head = None if model is base else (linear[-2], linear[-1])
    return Parts(tables, base.embeddings.LayerNorm, blocks, head)


def _bert(layer: Any) -> Block:
    own, out = layer.attention.self, layer.attention.output
    return Block(
        own.query, own.key, own.value, out.dense, out.LayerNorm, layer.intermediate.dense, layer.intermediate.intermediate_act_fn,
        layer.output.dense, layer.output.LayerNorm,
    )  # fmt: skip


def _distilbert(layer: Any) -> Block:
    own, network = layer.attention, layer.ffn
    return Block(
        own.q_lin, own.k_lin, own.v_lin, own.out_lin, layer.sa_layer_norm, network.lin1, network.activation, network.lin2,
        layer.output_layer_norm,
    )  # fmt: skip
