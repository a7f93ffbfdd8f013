"""OpenVINO variants of a merged folder: a stateful IR by optimum-intel, its weights in 16 bits, or in 8 or 4 by NNCF.

    openvino_fp16   weights in fp16
    openvino_int8   weights in INT8, one scale a row
    openvino_int4   weights in INT4 by groups (weight_groups.py), embeddings and head in INT8; training texts, where there are
                    any, choose scales that keep the layers' answers (AWQ and scale estimation)

The folder is laid out as optimum-intel and OpenVINO GenAI read it: model, tokenizer and detokenizer as IRs, and the small files
of the merged folder.
Source: https://docs.openvino.ai/2026/openvino-workflow/model-optimization-guide/weight-compression.html
"""

import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from mangakd.export.language import openvino_tokenizer
from mangakd.export.language.job import Job
from mangakd.export.language.library import Library
from mangakd.export.language.openvino_layout import MODEL, inputs
from mangakd.export.language.weight_groups import WHOLE_ROW, check_family, row_lengths, weight_group
from mangakd.export.smooth_quant import quiet_nncf
from mangakd.export.spread import spread

NEEDS = {"openvino": "openvino", "openvino_tokenizers": "openvino"}
NNCF = {**NEEDS, "nncf": "openvino"}
OPTIMUM = Library(
    "optimum.intel",
    "optimum-intel",
    "MANGAKD_OPTIMUM_PYTHON",
    "optimum,openvino",
    "'optimum-intel>=2.1,<2.2' 'openvino>=2025.4'",
)
PROGRAM = Path(__file__).with_name("openvino_side.py")
CALIBRATION, TOKENS = 32, 128  # texts, and tokens of each: scales settle early, and each layer computes all of them
_SMALL = ("*.json", "*.jinja", "*.model", "*.txt")


def check(config: Any, tokenizer: Any) -> None:
    """Raises UserError for an architecture of another family than FAMILIES."""
    check_family(config, "openvino_lm")


def int4_group(config: Any) -> int:
    return weight_group(row_lengths(config))


def fp16(job: Job) -> dict[str, Any]:
    return _save(job, _base(job))


def int8(job: Job) -> dict[str, Any]:
    import nncf

    with quiet_nncf():
        model = nncf.compress_weights(_base(job), mode=nncf.CompressWeightsMode.INT8_ASYM)
    return _save(job, model) | {"group_size": WHOLE_ROW}


def int4(job: Job) -> dict[str, Any]:
    """Raises UserError where NNCF cannot calibrate on the texts."""
    import nncf

    group = int4_group(job.student.config)
    model = _base(job)
    batches = list(_batches(job, {each.get_any_name() for each in model.inputs}))
    aware = {"dataset": nncf.Dataset(batches), "awq": True, "scale_estimation": True} if batches else {}
    with quiet_nncf():
        quantised = nncf.compress_weights(
            model, mode=nncf.CompressWeightsMode.INT4_ASYM, group_size=group, ratio=1.0, **aware
        )
    return _save(job, quantised) | {"group_size": group, "calibration_texts": len(batches)}


def _batches(job: Job, names: set[str]) -> Iterator[dict[str, np.ndarray]]:
    for text in spread(job.texts, CALIBRATION):
        if ids := job.student.tokenizer(text, add_special_tokens=False)["input_ids"][:TOKENS]:
            yield inputs(names, ids)


def _base(job: Job) -> Any:
    """The fp32 model. It is converted once and read for each variant, because NNCF changes the model in place."""
    import openvino as ov

    folder = job.work / "openvino"
    if "optimum" not in job.facts:
        paths = {"model": str(job.merged.absolute()), "out": str(folder.absolute())}
        job.facts["optimum"] = OPTIMUM.run(PROGRAM, paths)
    return ov.Core().read_model(folder / MODEL)


def _save(job: Job, model: Any) -> dict[str, Any]:
    import openvino as ov

    for pattern in _SMALL:
        for file in sorted(job.merged.glob(pattern)):
            if file.name not in ("language.json", "model.safetensors.index.json"):
                shutil.copy(file, job.folder / file.name)
    ov.save_model(model, job.folder / MODEL, compress_to_fp16=True)
    openvino_tokenizer.save(job.merged, job.folder, job.student.context)
    return {"converter": job.facts["optimum"]}
