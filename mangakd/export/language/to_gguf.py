"""GGUF files of a merged folder: `gguf_f16`, `gguf_q8_0` and K-quants, by the package gguf.

One file holds sizes, tokenizer, chat template and weights. gguf_model.py, gguf_tokenizer.py, pre_tokenizer.py and quantise.py
say what is in it; this file writes it.
"""

import logging
from pathlib import Path
from typing import Any

import numpy as np
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from mangakd.core.errors import UserError
from mangakd.export.language import pre_tokenizer
from mangakd.export.language.gguf_model import ARCHITECTURES, add_sizes, check_architecture, tensors
from mangakd.export.language.gguf_tokenizer import BLANKS, add_vocabulary, check_tokenizer, vocabulary
from mangakd.export.language.job import Job
from mangakd.export.language.quantise import RECIPES, quantise, type_of
from mangakd.export.language.texts import texts
from mangakd.models.quiet import quiet

FILE = "model.gguf"
NEEDS = {"gguf": "gguf", "xllamacpp": "gguf"}
logging.getLogger("gguf").setLevel(logging.WARNING)  # it tells of each file that it begins
_SMALL = 32  # hidden size of the scratch model


def check(config: Any, tokenizer: Any) -> None:
    """Raises UserError for a student of which no GGUF file is written: its architecture, its positions, its tokenizer."""
    check_architecture(config, tokenizer)
    check_tokenizer(tokenizer)


def write(job: Job, name: str) -> dict[str, Any]:
    """Write the file of the variant `name`; returns the choices that were made."""
    from gguf import GGMLQuantizationType, LlamaFileType

    with quiet():
        model = AutoModelForCausalLM.from_pretrained(job.merged, dtype=torch.float32)
        tokenizer = AutoTokenizer.from_pretrained(job.merged)
    pre, tried = _pre(job, model.config, tokenizer)
    recipe, counts = RECIPES[name], dict[str, int]()
    writer = _writer(job.folder / FILE, model.config, job.student.context)
    writer.add_name(job.student.folder.resolve().name)
    writer.add_file_type(LlamaFileType[recipe.file_type])
    writer.add_quantization_version(2)  # of the layout of quantised blocks
    _add_tokenizer(writer, model, tokenizer, pre)
    for target, array in tensors(model):
        kind = type_of(recipe, target, array.shape, model.config.num_hidden_layers, model.config.tie_word_embeddings)
        counts[kind] = counts.get(kind, 0) + 1
        writer.add_tensor(target, quantise(array, kind), raw_dtype=GGMLQuantizationType[kind])
    _close(writer)
    check_template(job.folder / FILE, tokenizer)
    return {"pre": pre, "tried": tried, "tensors": counts}


def check_template(file: Path, tokenizer: Any) -> None:
    """Raises UserError for a file without the student's chat template: llama.cpp would take one of its own, without a word."""
    from gguf import GGUFReader

    field = GGUFReader(file).fields.get("tokenizer.chat_template")
    if tokenizer.chat_template and (field is None or field.contents() != tokenizer.get_chat_template()):
        raise UserError(
            f"{file.parent.name.partition('.')[0]} is not kept: the file lacks the student's chat template."
        )


def _pre(job: Job, config: Any, tokenizer: Any) -> tuple[str, dict[str, int]]:
    """The name, found once for all variants of an export, and what was tried."""
    own = vocabulary(tokenizer, config.vocab_size)
    if own.kind == BLANKS:
        return "default", {}
    if not job.facts:
        asked = texts([str(token) for token in tokenizer.all_special_tokens])

        def scratch(file: Path, name: str) -> None:
            _write_vocabulary(file, config, tokenizer, name)

        plain = AutoTokenizer.from_pretrained(job.merged, split_special_tokens=True)
        job.facts["pre"] = pre_tokenizer.find(plain, asked, pre_tokenizer.opener(scratch, job.work))
    pre: tuple[str, dict[str, int]] = job.facts["pre"]
    return pre


def _writer(file: Path, config: Any, context: int) -> Any:
    from gguf import MODEL_ARCH, MODEL_ARCH_NAMES, GGUFWriter

    writer = GGUFWriter(file, MODEL_ARCH_NAMES[MODEL_ARCH[ARCHITECTURES[config.model_type].name]])
    add_sizes(writer, config, context)
    return writer


def _add_tokenizer(writer: Any, model: Any, tokenizer: Any, pre: str) -> None:
    named = [tokenizer.eos_token_id, model.generation_config.eos_token_id, model.config.eos_token_id]
    each = [token for entry in named for token in (entry if isinstance(entry, list | tuple) else [entry])]
    ends = [*dict.fromkeys(token for token in each if token is not None)]
    add_vocabulary(writer, vocabulary(tokenizer, model.config.vocab_size), tokenizer, pre, ends)


def _write_vocabulary(file: Path, config: Any, tokenizer: Any, pre: str) -> None:
    """The vocabulary with a model of one layer and a few zeros, so that llama.cpp opens it at once."""
    from gguf import GGUFWriter

    writer = GGUFWriter(file, "llama")
    sizes = {"hidden_size": _SMALL, "num_hidden_layers": 1, "intermediate_size": _SMALL, "num_attention_heads": 1}
    small = _Small(vocab_size=config.vocab_size, num_key_value_heads=1, head_dim=_SMALL, **sizes)
    add_sizes(writer, small, 64)
    ends = [] if tokenizer.eos_token_id is None else [tokenizer.eos_token_id]
    add_vocabulary(writer, vocabulary(tokenizer, config.vocab_size), tokenizer, pre, ends)
    matrix, vector = np.zeros((_SMALL, _SMALL), np.float16), np.ones(_SMALL, np.float32)
    writer.add_tensor("token_embd.weight", np.zeros((config.vocab_size, _SMALL), np.float16))
    writer.add_tensor("output_norm.weight", vector)
    for name in ("attn_norm", "ffn_norm"):
        writer.add_tensor(f"blk.0.{name}.weight", vector)
    for name in ("attn_q", "attn_k", "attn_v", "attn_output", "ffn_gate", "ffn_up", "ffn_down"):
        writer.add_tensor(f"blk.0.{name}.weight", matrix)
    _close(writer)


class _Small:
    """Sizes of the scratch model, as a config has them."""

    rms_norm_eps, rope_parameters = 1e-5, None

    def __init__(self, **sizes: int) -> None:
        self.__dict__.update(sizes)


def _close(writer: Any) -> None:
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
