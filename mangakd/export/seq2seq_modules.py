"""The two modules that an encoder–decoder becomes when it is exported: one reads a source, one takes a step of the decoder.

The encoder's graph holds the projections of cross-attention, so they are computed once a text and not once a token. It runs the
decoder on one token to get them from transformers' own cache, whatever the architecture calls them; the converters drop the rest
of that step, which no output needs. The past is empty at the first step, so one graph serves all steps.
Source: transformers' EncoderDecoderCache, https://huggingface.co/docs/transformers/kv_cache
"""

from typing import Any

import torch
from torch import Tensor, nn
from transformers import DynamicCache, EncoderDecoderCache
from transformers.cache_utils import DynamicLayer

from mangakd.core.spec import stacks
from mangakd.models.seq2seq import bodies


class Student(nn.Module):
    """Holds the Hugging Face model, as graph.Answer does."""

    pooling = None

    def __init__(self, model: Any) -> None:
        super().__init__()
        self.model = model


class SourceReader(Student):
    """forward(input_ids, attention_mask (B, S)) → keys and values of each decoder layer, (B, H, S, D) each."""

    def forward(self, input_ids: Tensor, attention_mask: Tensor) -> tuple[Tensor, ...]:
        encode, decode = bodies(self.model)
        states = encode(input_ids=input_ids, attention_mask=attention_mask).last_hidden_state
        own, crossed = ([_Layer() for _ in range(stacks(self.model.config)[1])] for _ in range(2))
        cache = _cache(own, crossed)
        decode(
            input_ids=torch.zeros_like(input_ids[:, :1]), encoder_hidden_states=states, encoder_attention_mask=attention_mask,
            past_key_values=cache,
            use_cache=True,
        )  # fmt: skip
        return _tensors(cache.cross_attention_cache)


class Step(Student):
    """forward(input_ids (B, 1), attention_mask (B, S), *cache) → logits (B, V), then keys and values with the new token.

    cache: keys and values of cross-attention, layer by layer, then those of the past.
    """

    def forward(self, input_ids: Tensor, attention_mask: Tensor, *tensors: Tensor) -> tuple[Tensor, ...]:
        layers = [_Layer(key, value) for key, value in zip(tensors[::2], tensors[1::2], strict=True)]
        half = len(layers) // 2
        cache = _cache(layers[half:], layers[:half])
        cache.is_updated = dict.fromkeys(range(half), True)
        # Cross-attention reads the cache; only the shape of the states is looked at.
        states = tensors[0].new_zeros(*attention_mask.shape, self.model.config.hidden_size)
        raw = self.model(
            encoder_outputs=(states,), attention_mask=attention_mask, decoder_input_ids=input_ids, past_key_values=cache,
            use_cache=True,
        )  # fmt: skip
        return raw.logits[:, -1].float(), *_tensors(cache.self_attention_cache)


class _Layer(DynamicLayer):
    """Keys and values that may be missing. transformers' own begins with a tensor of one axis, which OpenVINO cannot join."""

    def __init__(self, keys: Tensor | None = None, values: Tensor | None = None) -> None:
        super().__init__()
        self.keys, self.values, self.is_initialized = keys, values, True

    def update(self, key_states: Tensor, value_states: Tensor, *args: Any, **kwargs: Any) -> tuple[Tensor, Tensor]:
        self.keys = key_states if self.keys is None else torch.cat([self.keys, key_states], -2)
        self.values = value_states if self.values is None else torch.cat([self.values, value_states], -2)
        return self.keys, self.values

    def get_seq_length(self) -> int:
        return 0 if self.keys is None else self.keys.shape[-2]


def _cache(own: list[_Layer], crossed: list[_Layer]) -> EncoderDecoderCache:
    caches = DynamicCache(), DynamicCache()
    for cache, layers in zip(caches, (own, crossed), strict=True):
        cache.layers = list(layers)
    return EncoderDecoderCache(*caches)


def _tensors(cache: Any) -> tuple[Tensor, ...]:
    return tuple(tensor for layer in cache.layers for tensor in (layer.keys, layer.values))
