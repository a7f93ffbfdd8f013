"""`merged`: a plain Hugging Face folder, which transformers, vLLM and TGI load. The other variants are made from it.

Adapters are merged in fp32 and the sum is cast to the dtype of their base: merged in bf16, answers differ by 8e-3
(models/adapter_folder.py merges). The folder's tokenizer reads names of special tokens as these tokens. Students of this package
say otherwise in tokenizer_config.json (`split_special_tokens`), because a user's text must not hold markup; but a server
tokenises a rendered conversation, whose markup must become tokens.
"""

from pathlib import Path
from typing import Any

import torch
from transformers import AutoModelForCausalLM

from mangakd.core.errors import UserError
from mangakd.export.language.student import Student
from mangakd.models.quiet import quiet

SAME = {torch.float32: 1e-5, torch.float16: 0.02, torch.bfloat16: 0.1}
"""Largest |Δ logit| of the folder to the student in fp32, in shares of the largest logit, by the dtype of the folder."""
_PROBE = 12  # tokens


def save(student: Student, folder: Path) -> dict[str, Any]:
    """Write the folder. Raises UserError if it answers otherwise than the student in fp32 with its adapters."""
    model = student.read()
    expected = _logits(model)
    tied = model.config.tie_word_embeddings
    with quiet():
        model.to(student.dtype).save_pretrained(folder)
        student.tokenizer.save_pretrained(folder)
        own = AutoModelForCausalLM.from_pretrained(folder, dtype="auto")
    difference = float((_logits(own) - expected).abs().max()) / max(1.0, float(expected.abs().max()))
    if not difference <= SAME[student.dtype]:
        raise UserError(
            f"merged cannot be made of {student.folder}: the folder's logits differ by {difference:.2g} of the largest from the "
            f"student's in fp32; {SAME[student.dtype]:g} is usual for {str(student.dtype).removeprefix('torch.')}. Its weights "
            "and its config.json do not fit together, or its numbers are too large for this dtype: save it in float32."
        )
    return {"dtype": str(student.dtype).removeprefix("torch."), "tied": tied, "difference": difference}


@torch.inference_mode()
def _logits(model: Any) -> torch.Tensor:
    """(1, T, V) of tokens that are spread over the vocabulary."""
    ids = torch.linspace(0, model.config.vocab_size - 1, _PROBE).long()[None]
    logits: torch.Tensor = model.eval()(input_ids=ids, use_cache=False).logits.float()
    return logits
