"""`Encoder`: a Hugging Face model that answers with `Outputs` and taps only the layers that were asked for.

Hidden states come from forward hooks on the mapped layers, attention from `models.attention`. Models that offer neither
(DeBERTa's own attention, ALBERT's shared layers) fall back to Hugging Face's output lists, with a notice.
"""

import contextlib
import inspect
import logging
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.distributed.fsdp import FSDPModule

from mangakd.core.errors import UserError
from mangakd.core.outputs import TARGETS, AttentionTap, Outputs
from mangakd.core.requires import Need
from mangakd.core.spec import ModelSpec
from mangakd.core.token_logits import FromStates, LmHead
from mangakd.models import attention, by_length, heads, hidden, language, packed, seq2seq
from mangakd.models.adapters import Adapters
from mangakd.models.compiled import compiled
from mangakd.models.outline import weights_digest
from mangakd.models.pooling import VectorHead, save_head
from mangakd.models.token_head import Queries, TokenHead, each_alone, of_queries, save_token_head
from mangakd.runtime.late import OWNER, SCORED

log = logging.getLogger(__name__)


class Encoder(nn.Module):
    """A model of `spec.layers` layers with a head. forward(inputs) → Outputs; `require(need)` decides what it holds.

    pooling: what answers from the states of a model that has no head in its own weights: of vectors, by default their mean,
    normalised, or of late interaction (models/token_head.py).
    inputs: `input_ids` and `attention_mask`, (B, T) int64, and `token_type_ids` where the model has them. Those of late
    interaction are of documents, beside the batch's queries (data/apart.py); so are its hidden states and attention. Those of
    language models hold TARGETS (B, T) bool.
    A language model runs without its head, which would build (B, T, V). One with an encoder and a decoder reads the tokens before
    the targets with its encoder (models/seq2seq.py). need: what `require` was last told.
    """

    def __init__(self, model: Any, spec: ModelSpec, pooling: VectorHead | TokenHead | None = None) -> None:
        super().__init__()
        self.model = model
        self.spec = spec
        self.adapters: Adapters | None = None  # all weights learn
        self.pooling = VectorHead() if pooling is None and spec.head.kind == "vector" else pooling
        if self.pooling is not None and getattr(model, "pooler", None) is not None:
            model.pooler.requires_grad_(False)  # no vector comes from it, so that it gets no gradient
        self._row = heads.HEADS[heads.made_as(spec.head.kind, model.config)]
        self._accepts = set(inspect.signature(self._bodies[0].forward).parameters)
        # A cache of keys and values would only take memory, or let packed texts see each other.
        self._always = {"use_cache": False} if "use_cache" in self._accepts else {}
        self.need = Need(answer=True)
        self._hidden: dict[int, Tensor] = {}
        self._attention: dict[int, AttentionTap] = {}
        self._records: dict[int, list[AttentionTap]] = {}  # what tapped attention modules write into
        self._hooks: list[Any] = []
        self._tapped: list[nn.Module] = []
        self._ask: dict[str, bool] = {}
        self._implementation: str | None = None  # the model's own attention, while it is replaced by ours
        self._packs = False

    @property
    def _bodies(self) -> tuple[Any, ...]:
        """What runs: of a language model the decoder alone, or its encoder and then its decoder."""
        if self.spec.head.source:
            return seq2seq.bodies(self.model)
        return (language.decoder(self.model) if self.spec.head.kind == "tokens" else self.model,)

    @property
    def lm_head(self) -> LmHead:
        """Of a model that answers with tokens."""
        return (seq2seq if self.spec.head.source else language).lm_head(self.model)

    @property
    def layers(self) -> list[nn.Module] | None:
        """Layers 1…L, an encoder's before a decoder's; None for a model without a list of them."""
        if self.spec.head.source:
            return [layer for stack in seq2seq.layers(self.model) for layer in stack]
        stack = hidden.layer_list(self.model, self.spec.layers)
        return None if stack is None else [*stack]

    @classmethod
    def of(cls, model: Any, role: str) -> "Encoder":
        """A sequence classifier of transformers, in an Encoder. role: student or teacher, for messages and its name."""
        if isinstance(model, cls):
            return model
        names = [each.__name__ for each in type(model).__mro__]
        if not isinstance(model, nn.Module) or not any("SequenceClassification" in name for name in names):
            raise UserError(
                f"{role} is a {names[0]}; give a sequence classifier of transformers, loaded with "
                "AutoModelForSequenceClassification.from_pretrained."
            )
        config: Any = model.config
        return cls(model, ModelSpec.from_config(config, f"{role} {config.model_type}", heads.trained_head(config)))

    def save_pretrained(self, folder: Any, **options: Any) -> None:
        """The model as a Hugging Face folder, without taps; with the pooling's files, as sentence-transformers writes them."""
        self.require(Need(answer=True)).model.save_pretrained(folder, **options)
        if self.spec.head.source:
            seq2seq.save_config(self.model, Path(folder))
        self.save_pooling(Path(folder))

    def save_pooling(self, folder: Path) -> None:
        if isinstance(self.pooling, TokenHead):
            save_token_head(self.pooling, folder)
        elif self.pooling is not None:
            save_head(self.pooling, self.spec.hidden, folder)

    def require(self, need: Need) -> "Encoder":
        """Put taps on exactly the hidden states and attention layers of `need`, taking earlier ones off.

        Raises UserError for what is not read of a model with an encoder and a decoder (`attention.check_readable`).
        """
        attention.check_readable(self.spec, need, self.model.config.is_encoder_decoder)
        self._clear()
        self.need = need
        if need.hidden:
            self._tap_hidden()
        if need.attention:
            self._tap_attention()
        return self

    def attend_with(self, implementation: str) -> "Encoder":
        """sdpa (as loaded), eager or flash_attention_2; attention taps compute with SDPA, whatever is chosen."""
        if implementation != "sdpa":
            self.model.config._attn_implementation = implementation
        return self

    def pack(self, active: bool = True) -> "Encoder":
        """A language model packs its sequences into rows without padding (models/packed.py).

        Raises UserError for a model whose packed sequences would see each other.
        """
        self._packs = active and self.spec.head.kind == "tokens"
        if self._packs and self.spec.head.source:
            raise UserError(f"{packed.KEY} needs a decoder alone; {self.spec.name} has an encoder and one. Remove it.")
        if self._packs:
            packed.check(self._bodies[0], self._accepts, self._always, self.spec.name)
        return self

    def compiled(self, active: bool = True) -> contextlib.AbstractContextManager[None]:
        """Within it the model runs compiled (models/compiled.py)."""
        return compiled(self._bodies) if active else contextlib.nullcontext()

    def forward(self, inputs: Mapping[str, Tensor]) -> Outputs:
        run, own = self._run, self._own(inputs)
        if isinstance(self.pooling, TokenHead):
            # Once for each query, whatever the number of its documents and of the parts of the batch.
            queries = of_queries(inputs)
            run = partial(
                self._run, queries=Queries(self.model(**self._own(queries)).last_hidden_state, queries[SCORED])
            )
            own |= {name: inputs[name] for name in (OWNER, SCORED)}
        if self.spec.head.kind == "tokens":
            return run({**own, TARGETS: inputs[TARGETS]})
        # Each run of a sharded model gathers its weights from all ranks, and ranks would run different numbers of parts.
        sharded = any(isinstance(module, FSDPModule) for module in self.modules())
        if sharded or self.need.attention or not (parts := by_length.parts(inputs)):
            return run(own)
        return by_length.outputs(run, own, parts, self.spec.head.kind)

    def _own(self, inputs: Mapping[str, Tensor]) -> dict[str, Tensor]:
        return {name: value for name, value in inputs.items() if name in self._accepts}

    def of_texts(self, inputs: Mapping[str, Tensor]) -> Mapping[str, Tensor]:
        """Inputs of single texts, (B, T), with what else this model needs to be tried on them."""
        if isinstance(self.pooling, TokenHead):
            return each_alone(inputs)
        if self.spec.head.kind == "tokens":
            which = seq2seq.last_half if self.spec.head.source else language.every_token
            return {**inputs, TARGETS: which(inputs["attention_mask"])}
        return inputs

    def _run(self, inputs: Mapping[str, Tensor], queries: Queries | None = None) -> Outputs:
        """queries: of late interaction, whose inputs are documents."""
        self._forget()
        if self.spec.head.source:
            outputs = seq2seq.answer(self.model, self.spec, inputs, self._hidden)
            self._check_taps()
            self._forget()
            return outputs
        own, places = self._own(inputs), None
        if self._packs and not (self.need.hidden or self.need.attention):  # layers are compared token by token
            own, places = packed.pack(inputs, self.model.config._attn_implementation == "flash_attention_2")
        raw = self._bodies[0](**own, **self._always, **self._ask)
        self._collect(raw)
        self._check_taps()
        layers = {i: self._hidden[i] for i in self.need.hidden}
        taps = {i: self._attention[i] for i in self.need.attention}
        self._forget()
        mask, fields = inputs["attention_mask"], dict[str, Any](self._row.fields(raw))
        if isinstance(self.pooling, TokenHead) and queries is not None:
            fields = {"logits": self.pooling.scores(queries, fields["vector"], inputs)}
        elif self.pooling is not None:
            fields["vector"] = self.pooling(fields["vector"], mask)
        elif self.spec.head.kind == "tokens":
            states, targets = fields["tokens"], inputs[TARGETS]
            states = (
                language.at_targets(states, targets) if places is None else packed.at_targets(states, places, targets)
            )
            fields["tokens"] = FromStates(states, self.lm_head)
        return Outputs(**{"logits": None, **fields}, mask=mask, hidden=layers, attention=taps)

    def _tap_hidden(self) -> None:
        if self.spec.head.source:
            self._hooks += seq2seq.tap(self.model, self.need.hidden, self._hidden)
            return
        layers = hidden.layer_list(self.model, self.spec.layers)
        if layers is None:
            log.info("%s has no list of %d layers; hidden states are all kept.", self.spec.name, self.spec.layers)
            self._ask["output_hidden_states"] = True
            return
        whole = self.model.base_model if self._bodies[0] is self.model else self._bodies[0]
        self._hooks += hidden.tap(layers, whole, self.need.hidden, self._hidden)

    def _tap_attention(self) -> None:
        modules = self._attention_modules()
        if modules is None:
            log.warning(
                "%s does not offer the attention interface: falling back to eager attention, slower and with dropout in "
                "the student's maps.", self.spec.name,
            )  # fmt: skip
            self._attend_with("eager")
            self._ask["output_attentions"] = True
            return
        if self._implementation in ("eager", "flash_attention_2"):
            log.warning(
                "a loss reads attention of %s, which therefore attends with sdpa, not %s.",
                self.spec.name,
                self._implementation,
            )
        for i in self.need.attention:
            attention.tap(modules[i - 1], self._records.setdefault(i, []))
            self._tapped.append(modules[i - 1])

    def _attention_modules(self) -> list[nn.Module] | None:
        """The attention modules in layer order, found by running two tokens through; None without the interface."""
        if not attention.offers_attention(self.model, self.spec.layers):
            return None
        self._attend_with(attention.NAME)
        was_training, need = self.model.training, self.need
        self.model.eval()
        self.need = Need(answer=True)
        tokens = torch.ones(1, 2, dtype=torch.long, device=next(self.model.parameters()).device)
        with attention.discover() as modules, torch.no_grad():
            # Not through self.model: a sharded teacher's weights are put together by the hooks of the whole.
            self(self.of_texts({"input_ids": tokens, "attention_mask": tokens}))
        self.need = need
        self.model.train(was_training)
        return modules if len({id(m) for m in modules}) == self.spec.layers else None

    def _attend_with(self, implementation: str) -> None:
        if self._implementation is None:
            self._implementation = self.model.config._attn_implementation
        # On the config, which all submodules share: the setter refuses wrappers such as ModernBERT's classifier.
        self.model.config._attn_implementation = implementation

    def _collect(self, raw: Any) -> None:
        self._attention.update({i: record.pop() for i, record in self._records.items() if record})
        if self._ask.get("output_hidden_states"):
            self._hidden.update(enumerate(raw.hidden_states))
        if self._ask.get("output_attentions"):
            self._attention.update({i + 1: AttentionTap(probs=p) for i, p in enumerate(raw.attentions)})

    def _check_taps(self) -> None:
        # A compiled or wrapped model can lose its hooks without a word; a loss over nothing must not look like training.
        silent = (self.need.hidden - self._hidden.keys()) | (self.need.attention - self._attention.keys())
        if silent:
            raise RuntimeError(
                f"taps of {self.spec.name} recorded nothing for layers {sorted(silent)}; is it compiled?"
            )

    def _clear(self) -> None:
        for hook in self._hooks:
            hook.remove()
        for module in self._tapped:
            attention.tap(module, None)
        if self._implementation is not None:
            self.model.config._attn_implementation = self._implementation
        self._hooks, self._tapped, self._records, self._ask, self._implementation = [], [], {}, {}, None

    def _forget(self) -> None:
        """Activations of one batch must not stay until the next, nor those of one that failed."""
        self._hidden.clear()
        self._attention.clear()
        for record in self._records.values():
            record.clear()


def encoder_digest(encoder: Encoder) -> str:
    """Of everything that its answers depend on."""
    weights = weights_digest(encoder.model)
    return encoder.pooling.digest(weights) if encoder.pooling is not None else weights
