"""Ask a model about two texts before anything is trained: some models load and then cannot answer."""

from typing import Any

import torch

from mangakd.core.errors import UserError
from mangakd.core.token_logits import FromStates
from mangakd.models.encoder import Encoder

TEXTS = ("This is the longer one of two texts.", "Short")


def two_texts(tokenizer: Any) -> dict[str, torch.Tensor]:
    """Inputs (2, T) of two texts of different length, padded on the right."""
    rows = [tokenizer(text, truncation=True, max_length=16)["input_ids"] for text in TEXTS]
    width = max(map(len, rows))
    ids = torch.tensor([row + [tokenizer.pad_token_id] * (width - len(row)) for row in rows])
    mask = torch.tensor([[1] * len(row) + [0] * (width - len(row)) for row in rows])
    return {"input_ids": ids, "attention_mask": mask}


def answer_two_texts(encoder: Encoder, tokenizer: Any, source: str) -> torch.Tensor:
    """Answers (2, outputs); of a language model the states that predict the tokens of the texts.

    Raises UserError where the model fails; an outline's fails alike, whatever its weights. told: `key=path`.
    """
    try:
        with torch.no_grad():
            outputs = encoder.eval()(encoder.of_texts(two_texts(tokenizer)))
    except (ValueError, TypeError, LookupError, RuntimeError, AttributeError) as error:
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0].rstrip(".")
        kind = encoder.model.config.model_type
        raise UserError(
            f"{source} is a {kind} that cannot answer two texts: {reason}. Its config.json, its tokenizer and its weights do not "
            "fit together, or it is no encoder of texts; give another model."
        ) from error
    return outputs.tokens.states if isinstance(outputs.tokens, FromStates) else outputs.answer


def check_numbers(encoder: Encoder, tokenizer: Any, source: str) -> Encoder:
    """The encoder, in eval mode. Raises UserError where a weight is no number, or an answer is none. told: `key=path`."""
    for name, weights in encoder.model.named_parameters():
        if not weights.isfinite().all():
            raise UserError(
                f"{source}: {name} holds what is no number (NaN or infinity): its weights are damaged. Give another model."
            )
    if not answer_two_texts(encoder, tokenizer, source).isfinite().all():
        raise UserError(
            f"{source} answers with what is no number (NaN or infinity): its weights are damaged. Give another model."
        )
    return encoder
