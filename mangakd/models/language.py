"""Causal language models: final hidden states and the head that turns them into logits.

transformers computes the logits (B, T, V) of every token in the model's forward. Here the decoder runs alone, and the head goes
to the losses with the states of the target positions. Some architectures scale or cap their logits outside of the head's layer;
the entries of their configs that say so are listed here, and `check_logits` compares the result with the model's own logits.
"""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from transformers import AutoModelForCausalLM, AutoModelForMaskedLM, PreTrainedModel

from mangakd.core.errors import UserError
from mangakd.core.token_logits import LmHead
from mangakd.models.outline import prefix_of

SCALES: dict[str, Callable[[Any], float]] = {
    "logit_scale": float,  # Cohere
    "lm_head_multiplier": float,  # Falcon-H1
    "logits_scaling": lambda divisor: 1 / divisor,  # Granite
}
"""Entry of a config → the scale of the logits."""
SOFT_CAPS = ("final_logit_softcapping", "logits_soft_cap", "output_logit_soft_cap")  # Gemma 2, RecurrentGemma, xLSTM
# Largest |Δ logit| of equal heads, in shares of the largest logit; in 16 bits for weights of 16 bits.
_NEAR, _NEAR_HALF = 1e-4, 0.05


def decoder(model: Any) -> Any:
    """The model without its head. Some classes (Llama 4's) name another one as their base."""
    base = model.base_model
    return base if base is not model else next(each for each in model.children() if isinstance(each, PreTrainedModel))


def output_embeddings(model: Any) -> Any:
    """The layer that is the head of a language model; None for other models, some of which say so with an error."""
    try:
        return model.get_output_embeddings()
    except NotImplementedError:
        return None


def lm_head(model: Any) -> LmHead:
    """The head of a causal language model, with its own weights, so that gradients reach them."""
    layer, config = model.get_output_embeddings(), model.config
    entries = {name: getattr(config, name, None) for name in (*SCALES, *SOFT_CAPS)}
    scale = next((scale(entries[name]) for name, scale in SCALES.items() if entries[name] is not None), 1.0)
    soft_cap = next((entries[name] for name in SOFT_CAPS if entries[name] is not None), None)
    bias = getattr(layer, "bias", None)
    return LmHead(Same.apply(layer.weight), None if bias is None else Same.apply(bias), scale, soft_cap)


class Same(torch.autograd.Function):
    """A parameter as a tensor of its own with the same memory.

    FSDP puts a hook on each tensor of an output. Those of a parameter would add up from step to step, and it warns of views.
    """

    @staticmethod
    def forward(ctx: Any, parameter: Tensor) -> Tensor:
        return parameter.detach()

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> Tensor:
        return gradients[0]


def at_targets(states: Tensor, targets: Tensor) -> Tensor:
    """The states (P, D) that predict the targets, which are those of the positions before. states: (S, T, D). targets: (S, T)."""
    return states[:, :-1][targets[:, 1:]]


def every_token(mask: Tensor) -> Tensor:
    """Targets (S, T) of models that are tried on texts: every token that follows another one. mask: (S, T), 0 for padding."""
    targets = mask.bool().clone()
    targets[:, 0] = False
    targets[:, 1:] &= mask[:, :-1].bool()
    return targets


def check_config(config: Any, source: str) -> None:
    """Raises UserError for a config of another kind of model. source: `key=path`, for messages."""
    kind, cure = config.model_type, "Give a causal language model (a decoder), such as a Llama, Qwen or Mistral folder."
    known = type(config) in AutoModelForCausalLM._model_mapping
    if not known or (type(config) in AutoModelForMaskedLM._model_mapping and not getattr(config, "is_decoder", False)):
        raise UserError(
            f"{source} is a {kind}, no causal language model: transformers gives it no head that predicts the next token from "
            f"the tokens before it. {cure}"
        )
    if config.get_text_config() is not config:
        raise UserError(f"{source} is a {kind}, which reads more than text. Give its language model alone. {cure}")


def check_head(model: Any, info: dict[str, Any], source: str) -> None:
    """Raises UserError where the files lack the head, or hold one of another size. info: transformers' lists of names."""
    shaped = [name for name, *_ in info["mismatched_keys"]]
    if missing := sorted(name for name in (*info["missing_keys"], *shaped) if not name.startswith(prefix_of(model))):
        raise UserError(
            f"{source}: its weights lack {missing[0]} as config.json describes it, so the model cannot say which token comes "
            "next. It was perhaps saved without its head; give a folder that was saved from AutoModelForCausalLM."
        )


def logits_near(head: LmHead, expected: Tensor) -> float:
    """The largest |Δ logit| of equal heads. expected: a model's own logits."""
    return (_NEAR if head.weight.dtype.itemsize > 2 else _NEAR_HALF) * float(expected.abs().max())


@torch.no_grad()
def check_logits(model: Any, source: str) -> None:
    """Compare the head's logits with the model's own on two rows of two tokens, which differ in the second one.

    Raises UserError where they differ, where the first token's logits depend on the second token, and where the model fails.
    """
    size, device = model.config.vocab_size, next(model.parameters()).device
    ids = torch.tensor([[size // 2, size // 3], [size // 2, size // 4]], device=device)
    was_training, head = model.training, lm_head(model.eval())
    try:
        expected = model(input_ids=ids, attention_mask=torch.ones_like(ids)).logits.float()
        states = decoder(model)(input_ids=ids, attention_mask=torch.ones_like(ids)).last_hidden_state
    except (ValueError, TypeError, LookupError, RuntimeError, AttributeError) as error:
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0].rstrip(".")
        raise UserError(f"{source} is a {model.config.model_type} that cannot read two tokens: {reason}.") from error
    finally:
        model.train(was_training)
    logits = head.logits(states.flatten(0, 1)).float()
    near = logits_near(head, expected)
    if not expected.isfinite().all():
        return  # models/trial.py says which weight is no number
    if float((expected[0, 0] - expected[1, 0]).abs().max()) > near:
        raise UserError(
            f"{source} is a {model.config.model_type} whose logits at a token depend on the tokens that follow it, so it is no "
            "causal language model. Give a decoder."
        )
    if (apart := float((expected.flatten(0, 1) - logits).abs().max())) > near:
        raise UserError(
            f"{source} is a {model.config.model_type} whose logits cannot be computed from its final states and its head's "
            f"weights: they differ by {apart:.3g} from the model's own. Only heads of a linear layer with a scale and a soft cap "
            "are supported; give a model of another architecture."
        )


def prepare(model: Any) -> None:
    """Correct two things in place that transformers leaves as config.json has them.

    A padding token that is also read as text (often that of the end) must keep the gradient of its embedding; `padding_idx` drops
    it. A head whose weights differ from the embedding's is not tied, whatever config.json says; copies would tie it.
    """
    embedding, head = model.get_input_embeddings(), model.get_output_embeddings()
    if isinstance(embedding, nn.Embedding):
        embedding.padding_idx = None
    model.config.tie_word_embeddings = head.weight is embedding.weight
