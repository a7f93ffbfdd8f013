"""`Model`: what planning needs to know of a model, counted from its Hugging Face config without its weights.

The architecture is built on the meta device, so a count is exact for every model that transformers can build, and 70
billion parameters take a second and no memory. Only the shape of a layer (its activations) is read from three numbers.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from torch import nn
from transformers import AutoConfig

from mangakd.core.errors import UserError
from mangakd.core.spec import Kind
from mangakd.models import lora, seq2seq
from mangakd.models.hidden import layer_list
from mangakd.models.load import shape
from mangakd.planning.job import one_of

PLANNED: tuple[Kind, ...] = ("labels", "score", "vector", "tokens")  # heads whose cost is known
ADAPTERS = lora.Lora(1)  # in every linear layer but the head


@dataclass(frozen=True)
class Decoder:
    """Of a model whose encoder reads the source. matrices: weights that multiply every target token, in all layers. cross: those
    that multiply every source token, the keys and values of cross-attention. intermediate: of the feed-forward part."""

    matrices: int
    cross: int
    layers: int
    intermediate: int


@dataclass(frozen=True)
class Model:
    """Counts of one model. `matrices`: weights that multiply every token, in all layers; embeddings only look up. Of a model with
    a `decoder` of its own, `matrices`, `layers` and `intermediate` are the encoder's, and the head runs on target tokens.

    parameters: all, tied weights once. outside: parameters beside the layers (embeddings, pooler, head). head:
    weights of the head that multiply. outputs: C classes, D of a vector, or V of a language model, whose head runs on every token
    (`per_token`), as that of late interaction does. adapter: Σ (in + out) over the matrices that get adapters; a LoRA of rank r
    has r times as many parameters. whole: parameters that learn beside adapters, those of the task's head.
    heads, keys (key-value heads) and head_size shape attention; intermediate and gated shape the feed-forward part. eager: it
    has no attention but the one that keeps its maps.
    """

    name: str
    parameters: int
    outside: int
    matrices: int
    head: int
    adapter: int
    whole: int
    layers: int
    hidden: int
    heads: int
    keys: int
    head_size: int
    intermediate: int
    gated: bool
    outputs: int
    per_token: bool
    decoder: Decoder | None = None
    eager: bool = False

    @classmethod
    def from_sizes(cls, sizes: Mapping[str, Any], name: str, kind: Kind, key: str) -> "Model":
        """From entries of a Hugging Face config, with its model_type."""
        try:
            config = AutoConfig.for_model(**sizes)
        except Exception as error:  # transformers checks names and types with errors of its own
            raise UserError(f"{key}={dict(sizes)}: {str(error).splitlines()[0]}") from error
        return cls.from_config(config, name, kind, key)

    @classmethod
    def from_config(cls, config: Any, name: str, kind: Kind, key: str, adapters: lora.Lora = ADAPTERS) -> "Model":
        """From a Hugging Face config, with a head of this kind. key: whose fault it is, for messages. adapters: their targets."""
        one_of("task.kind", kind, PLANNED)
        model = shape(config, key, kind)
        two = seq2seq.layers(model) if seq2seq.writes(model) else None
        stack = two[0] if two else layer_list(model, config.num_hidden_layers)
        repeats = 1
        if stack is None:  # ALBERT runs the same layers again and again
            groups = getattr(config, "num_hidden_groups", None)
            stack = layer_list(model, groups) if groups else None
            repeats = config.num_hidden_layers // groups if groups else 1
        if stack is None:
            raise UserError(
                f"{key}: {config.model_type} has no list of layers, so this run cannot be planned. Use plan=false."
            )
        inside = _matrices(stack)
        tables = {id(m.weight) for m in model.modules() if isinstance(m, nn.Embedding)}
        within = {id(p) for each in two or (stack,) for p in each.parameters()}
        heads = config.num_attention_heads
        largest = max(max(p.shape) for p in inside)
        language = kind == "tokens"
        whole = sum(model.get_parameter(name).numel() for name in lora.head_parameters(model, kind))
        others = [p for p in model.parameters() if id(p) not in within]
        head = sum(p.numel() for p in others if p.dim() == 2 and id(p) not in tables)
        return cls(
            name=name,
            parameters=sum(p.numel() for p in model.parameters()),
            outside=sum(p.numel() for p in others),
            matrices=repeats * sum(p.numel() for p in inside),
            head=config.vocab_size * config.hidden_size if language else head,  # tied: also an embedding
            adapter=lora.learning(model, kind, replace(adapters, rank=1)) - whole,
            whole=whole,
            layers=len(stack) if two else config.num_hidden_layers,
            hidden=config.hidden_size,
            heads=heads,
            keys=getattr(config, "num_key_value_heads", None) or heads,
            head_size=getattr(config, "head_dim", None) or config.hidden_size // heads,
            intermediate=largest,
            gated=sum(largest in p.shape for p in stack[0].parameters() if p.dim() == 2) == 3,
            outputs={"tokens": config.vocab_size, "vector": config.hidden_size}.get(kind, config.num_labels),
            per_token=language,
            decoder=_decoder(two[1]) if two else None,
            eager=bool(two) and not model._supports_sdpa,
        )

    def with_head(self, weights: int, outputs: int, per_token: bool) -> "Model":
        """With layers on the encoder's states that are no part of the model of transformers: the Dense layers of vectors."""
        more = {name: weights + getattr(self, name) for name in ("parameters", "outside", "head", "whole")}
        return replace(self, outputs=outputs, per_token=per_token, **more)

    def times(self, members: int) -> "Model":
        """An ensemble of such models, run one after another: as deep as all of them together."""
        if members == 1:
            return self
        sums = {name: members * getattr(self, name) for name in _SUMS}
        two = self.decoder
        decoder = two and replace(
            two, **{name: members * getattr(two, name) for name in ("matrices", "cross", "layers")}
        )
        return replace(self, name=f"{members} × {self.name}", decoder=decoder, **sums)

    @property
    def depth(self) -> int:
        """Layers of encoder and decoder together."""
        return self.layers + (self.decoder.layers if self.decoder else 0)

    @property
    def multiplied(self) -> int:
        """Weights of all layers that multiply tokens."""
        return self.matrices + (self.decoder.matrices + self.decoder.cross if self.decoder else 0)

    @property
    def layer(self) -> int:
        """Parameters of one layer, on average: what FSDP gathers at a time."""
        return (self.parameters - self.outside) // self.depth

    def forward_flops(self, samples: float, length: int, target: int = 0) -> float:
        """Of one pass over texts of `length` tokens: 2 a weight and token; attention 4·T·D a token and layer.

        target: how many of the tokens a decoder reads; they attend to each other and to all others.
        """
        width = 4 * self.heads * self.head_size
        if self.decoder is None:
            tokens = samples * length
            attention = length * width * self.layers
            return tokens * (2 * self.matrices + attention) + 2 * self.head * (tokens if self.per_token else samples)
        source, two = length - target, self.decoder
        encoder = source * (2 * (self.matrices + two.cross) + width * source * self.layers)
        return samples * (encoder + target * (2 * (two.matrices + self.head) + width * length * two.layers))


_SUMS = ("parameters", "outside", "matrices", "head", "adapter", "layers")


def _decoder(stack: nn.ModuleList) -> Decoder:
    """Cross-attention is named EncDecAttention in T5 and its kin, encoder_attn in BART's."""
    cross = sum(
        p.numel()
        for name, p in stack.named_parameters()
        if p.dim() == 2 and _CROSS & {*name.split(".")} and name.split(".")[-2] in ("k", "v", "k_proj", "v_proj")
    )
    inside = _matrices(stack)
    return Decoder(sum(p.numel() for p in inside) - cross, cross, len(stack), max(max(p.shape) for p in inside))


_CROSS = {"EncDecAttention", "encoder_attn"}


def _matrices(stack: nn.ModuleList) -> list[nn.Parameter]:
    """Without the tables of T5's relative positions, which are looked up."""
    tables = {id(m.weight) for m in stack.modules() if isinstance(m, nn.Embedding)}
    return [p for p in stack.parameters() if p.dim() == 2 and id(p) not in tables]
