"""The tokenizer and the detokenizer of a language model as IRs, as OpenVINO GenAI and the model server read them.

The converter cuts no text unless it is asked to, and then at the tokenizer's own model_max_length: its option max_length has no
part in it. So that setting becomes the student's context first, and a long text is compared with the tokenizer's.
Ids of other texts are compared by parity.py.
"""

import warnings
from pathlib import Path
from typing import Any

import numpy as np
from transformers import AutoTokenizer

from mangakd.core.errors import UserError
from mangakd.export.language.openvino_layout import DETOKENIZER, TOKENIZER
from mangakd.export.traced import quiet_logs
from mangakd.models.quiet import quiet

_WORDS = ("one", "two", "three", "and", "4", "more", "words")


def save(merged: Path, folder: Path, context: int) -> None:
    """Raises UserError for a tokenizer that cannot be converted, or whose IR has no chat template or cuts elsewhere."""
    import openvino as ov
    from openvino_tokenizers import convert_tokenizer

    with quiet():
        tokenizer = AutoTokenizer.from_pretrained(merged)
    tokenizer.model_max_length = context
    try:
        with warnings.catch_warnings(), quiet_logs("openvino_tokenizers"):
            warnings.simplefilter("ignore")
            irs = convert_tokenizer(tokenizer, with_detokenizer=True, truncation=True)
    except Exception as error:  # an unsupported tokenizer may raise any exception
        raise UserError(
            f"openvino_tokenizers cannot convert the tokenizer of {merged}: {str(error).strip().splitlines()[0]}"
        ) from error
    if tokenizer.chat_template and not irs[0].has_rt_info("chat_template"):
        raise UserError("the converted tokenizer has no chat template.")
    for ir, name in zip(irs, (TOKENIZER, DETOKENIZER), strict=True):
        ov.save_model(ir, folder / name, compress_to_fp16=False)
    check_cut(ov.compile_model(irs[0], "CPU"), tokenizer)


def check_cut(ir: Any, tokenizer: Any) -> None:
    """Raises UserError where a text of more tokens than model_max_length is not cut as the tokenizer cuts it."""
    context = tokenizer.model_max_length
    text = " ".join(_WORDS[i % len(_WORDS)] for i in range(context + 9))
    expected = tokenizer(text, truncation=True)["input_ids"]
    own = ir([text])["input_ids"][0]
    if not np.array_equal(own, expected):
        raise UserError(
            f"the converted tokenizer makes {len(own)} tokens of a text that the student's tokenizer cuts to {len(expected)}."
        )
