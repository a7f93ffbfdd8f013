"""`vllm_int4`: a Hugging Face folder with INT4 weights in compressed-tensors' format, which vLLM serves, by llm-compressor.

GPTQ chooses the INT4 weights on training texts. Embeddings and head stay in 16 bits. vLLM's kernels take groups of 128, 64 or 32
weights of a row, or whole rows. The folder is loaded back by transformers, which gives its quality and a time that is not vLLM's:
transformers unpacks the weights. vLLM computes floats in 16 bits; so a student in fp32 is saved in bf16.
Source: https://docs.vllm.ai/projects/llm-compressor/
"""

import shutil
from pathlib import Path
from typing import Any

import torch

from mangakd.core.errors import UserError
from mangakd.export.language.job import Job
from mangakd.export.language.library import Library
from mangakd.export.language.weight_groups import check_family, row_lengths, weight_group
from mangakd.export.spread import spread

NEEDS = {"compressed_tensors": "vllm-int4"}
LLM_COMPRESSOR = Library(
    "llmcompressor", "llm-compressor", "MANGAKD_LLM_COMPRESSOR_PYTHON", "vllm-int4", "'llmcompressor>=0.14,<0.15'"
)
PROGRAM = Path(__file__).with_name("compressed_side.py")
GROUPS = (32, 64, 128)
CALIBRATION, TOKENS, LEAST = 128, 512, 16  # texts, tokens of each, and fewer texts than which give no Hessian
STAYS = ("lm_head",)
_OF_MERGED = ("tokenizer*.json", "special_tokens_map.json", "generation_config.json", "*.jinja")


def check(config: Any, tokenizer: Any) -> None:
    """Raises UserError for an architecture of another family than FAMILIES."""
    check_family(config, "vllm")


def save(job: Job) -> dict[str, Any]:
    """Write the folder. Raises UserError with fewer than LEAST texts."""
    ids = [
        job.student.tokenizer(text, add_special_tokens=False)["input_ids"][:TOKENS]
        for text in spread(job.texts, CALIBRATION)
    ]
    ids = [each for each in ids if each]
    if len(ids) < LEAST:
        raise UserError(
            f"vllm_int4 is calibrated on training texts and needs {LEAST}; there are {len(ids)}. Remove vllm from export."
        )
    group = weight_group(row_lengths(job.student.config), GROUPS)
    dtype = torch.bfloat16 if job.student.dtype == torch.float32 else job.student.dtype
    paths = {"model": str(job.merged.absolute()), "out": str(job.folder.absolute())}
    versions = LLM_COMPRESSOR.run(
        PROGRAM, {**paths, "dtype": str(dtype).removeprefix("torch."), "group": group, "ids": ids, "ignore": STAYS}
    )
    for pattern in _OF_MERGED:  # as this version of transformers wrote them
        for file in sorted(job.merged.glob(pattern)):
            shutil.copy(file, job.folder / file.name)
    return {
        "converter": versions,
        "group_size": group,
        "calibration_texts": len(ids),
        "dtype": str(dtype).removeprefix("torch."),
    }
