"""An attention function that computes with SDPA and hands query, key and value to whoever asked.

`output_attentions=True` would force eager attention in every layer of both models, keep every map, and return maps that
went through dropout. Registered with transformers' `AttentionInterface`, this one keeps SDPA and records only the layers
a loss needs; the loss rebuilds the maps from query, key, scale and mask. Under dropout the rebuilt maps are the clean ones.
"""

from typing import Any

import torch
from torch import Tensor, nn
from transformers import AttentionInterface
from transformers.integrations.sdpa_attention import repeat_kv, sdpa_attention_forward
from transformers.masking_utils import AttentionMaskInterface, sdpa_mask

from mangakd.core.errors import UserError
from mangakd.core.outputs import AttentionTap
from mangakd.core.requires import Need
from mangakd.core.spec import ModelSpec
from mangakd.models.hidden import layer_list

NAME, FINITE = "mangakd_sdpa", "mangakd_finite_sdpa"
_SLOT = "mangakd_tap"  # attribute of a tapped attention module: the list that its record goes into

_discovered: list[nn.Module] | None = None


def tapped_sdpa(
    module: nn.Module, query: Tensor, key: Tensor, value: Tensor, mask: Tensor | None, **kwargs: Any
) -> Any:
    """SDPA, unchanged, plus a record of its inputs (B, H, T, d) when the module carries a tap."""
    if _discovered is not None:
        _discovered.append(module)
    record = getattr(module, _SLOT, None)
    if record is not None:
        groups = getattr(module, "num_key_value_groups", 1)
        scale = kwargs.get("scaling") or query.shape[-1] ** -0.5
        record.append(AttentionTap(query, repeat_kv(key, groups), repeat_kv(value, groups), scale, allowed=mask))
    return sdpa_attention_forward(module, query, key, value, mask, **kwargs)


def _written_mask(*args: Any, **kwargs: Any) -> Tensor | None:
    """SDPA's mask, also where a decoder's batch has no padding: a tap must know that later tokens are not seen."""
    return sdpa_mask(*args, **{**kwargs, "allow_is_causal_skip": False})


def _finite_sdpa(
    module: nn.Module, query: Tensor, key: Tensor, value: Tensor, mask: Tensor | None, **kwargs: Any
) -> Any:
    """SDPA with the lowest number in place of -inf, so that a row whose keys are all masked has no 0 / 0.

    Padding beyond a sliding window of the last token is such a row. PyTorch answers it with 0 and OpenVINO with NaN, which the
    next layer spreads to the tokens of the text. What a row sees that has a key is not changed: exp of the lowest number is 0.
    """
    if mask is not None and mask.dtype == torch.bool:
        mask = torch.zeros((), dtype=query.dtype).where(mask, torch.finfo(query.dtype).min)
    return sdpa_attention_forward(module, query, key, value, mask, **kwargs)


def keep_finite(model: Any) -> None:
    """Let a model that is exported attend without infinities; models without the attention interface do so already."""
    if getattr(model, "_supports_attention_backend", False) and soft_cap(model.config) is None:
        model.config._attn_implementation = FINITE


def keep_soft_cap(model: Any) -> None:
    """Let a model that caps its attention scores (Gemma 2) attend eagerly: SDPA leaves the cap out without a word."""
    if soft_cap(model.config) is not None and model.config._attn_implementation == "sdpa":
        model.config._attn_implementation = "eager"


def soft_cap(config: Any) -> float | None:
    return getattr(config, "attn_logit_softcapping", None)


AttentionInterface.register(NAME, tapped_sdpa)
AttentionInterface.register(FINITE, _finite_sdpa)
AttentionMaskInterface.register(FINITE, sdpa_mask)
AttentionMaskInterface.register(NAME, _written_mask)


class discover:
    """Context in which every attention module that runs is listed, in the order of the layers."""

    def __enter__(self) -> list[nn.Module]:
        global _discovered
        _discovered = []
        return _discovered

    def __exit__(self, *_: object) -> None:
        global _discovered
        _discovered = None


def tap(module: nn.Module, record: list[AttentionTap] | None) -> None:
    """Append this module's inputs to `record` at every forward; None takes the tap off.

    A list for each module, not one for all layers: compiled code is bound to a layer's number or to how full a shared
    record is, and FSDP, which compiles layer by layer, would compile each layer anew and soon give up.
    """
    setattr(module, _SLOT, record)


def offers_attention(model: Any, depth: int) -> bool:
    """Whether queries and keys of each layer can be tapped. Known without running the model, so on the meta device too."""
    taps = getattr(model, "_supports_attention_backend", False) and soft_cap(model.config) is None
    return bool(taps) and layer_list(model, depth) is not None


def check_readable(spec: ModelSpec, need: Need, two_stacks: bool) -> None:
    """Raises UserError for what is never read of a model with an encoder and a decoder (two_stacks).

    That is attention; and of a classifier hidden states, too: `spec.layers` counts one of its stacks.
    """
    if not two_stacks:
        return
    if spec.head.source and need.attention:
        raise UserError(
            f"{spec.name} has an encoder and a decoder, whose attention is not read: leave losses that read it (attention, "
            "relation) out. Losses on tokens and on hidden states fit."
        )
    if not spec.head.source and (need.hidden or need.attention):
        raise UserError(
            f"{spec.name} has an encoder and a decoder, and layers of one stack are compared: leave losses that read layers "
            "(hidden, attention, relation) out. Losses on logits (hard_label, output) fit."
        )
