"""A stateful IR of a language model: its files, its inputs, and the settings with which it is measured and served.

The CPU quantises activations of INT8 and INT4 weights while it computes, even if the precision is f32. So the settings stand in
language.json, and quality is measured with them. Without a hint, CPUs with units for bf16 compute in bf16, and others do not:
quality would depend on the machine.
Source: https://docs.openvino.ai/2026/openvino-workflow/model-optimization-guide/weight-compression.html
"""

from collections.abc import Collection, Mapping, Sequence
from typing import Any

import numpy as np

from mangakd.export.language.weight_groups import activation_group

MODEL, TOKENIZER, DETOKENIZER = "openvino_model.xml", "openvino_tokenizer.xml", "openvino_detokenizer.xml"
"""optimum-intel's names, which OpenVINO GenAI and the model server read."""
KEPT = "kept"  # input (1): of how many tokens at the end logits are computed


def settings(weights: int | None) -> Mapping[str, Any]:
    """By OpenVINO's names. weights: the group size of the weights; None where they are not quantised."""
    group = 0 if weights is None else activation_group(weights)
    return {
        "INFERENCE_PRECISION_HINT": "f32", "KV_CACHE_PRECISION": "f16", "DYNAMIC_QUANTIZATION_GROUP_SIZE": group,
    }  # fmt: skip


def inputs(names: Collection[str], ids: Sequence[int], past: int = 0, last: int = 1) -> dict[str, np.ndarray]:
    """Those of `names`, for one sequence behind `past` tokens in the state. ids: T tokens. last: logits wanted."""
    width = past + len(ids)
    own: dict[str, np.ndarray] = {
        "input_ids": np.array([ids], dtype=np.int64), "attention_mask": np.ones((1, width), dtype=np.int64),
        "position_ids": np.arange(past, width)[None], "beam_idx": np.zeros(1, dtype=np.int32),
        KEPT: np.array([last], dtype=np.int64),
    }  # fmt: skip
    return {name: own[name] for name in names}
