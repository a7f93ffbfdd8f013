"""OpenVINO variants: IR in fp32 and fp16, INT8 weights, and full INT8 by post-training quantisation.

Full INT8 is calibrated on training texts (mangakd/export/smooth_quant.py). The tokenizer becomes a separate IR. A joint IR of
tokenizer and model answered some inputs with an empty batch, without an error.
Source: NNCF, https://docs.openvino.ai/2026/openvino-workflow/model-optimization-guide/quantizing-models-post-training.html
"""

import logging
import time
import warnings
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from tokenizers import AddedToken

from mangakd.core.errors import UserError
from mangakd.export import smooth_quant
from mangakd.export.graph import Graph
from mangakd.export.traced import Batches, Traced, quiet_logs

TOKENIZER = "openvino_tokenizer.xml"  # optimum-intel's name
# In a student's folder: the IR of a student trained with quantisers (export/quantised.py).
IN_STUDENT, TRAINED = "quantised", "model.xml"
_PROBES = (
    ["Don't ship the Café box to 東京, 12.50 €\tplease!", ""],
    ["a long text " * 400, "and", "short  ones"],
    ["[SEP] </s> a [MASK]<mask>"],
)
_NEVER = "\U0010fffe" * 2  # two noncharacters
log = logging.getLogger(__name__)


def file_of(graph: Traced) -> str:
    """openvino_model.xml is optimum-intel's name."""
    return f"openvino_{graph.stem}.xml"


def fp32(graph: Traced, calibration: Batches, scratch: Path, folder: Path) -> None:
    _save(graph, _base(graph, scratch), folder, compress=False)


def fp16(graph: Traced, calibration: Batches, scratch: Path, folder: Path) -> None:
    """Weights in fp16; CPUs still compute in fp32."""
    _save(graph, _base(graph, scratch), folder, compress=True)


def int8_weights(graph: Traced, calibration: Batches, scratch: Path, folder: Path) -> None:
    import nncf

    with smooth_quant.quiet_nncf():
        model = nncf.compress_weights(_base(graph, scratch), mode=nncf.CompressWeightsMode.INT8_ASYM)
    _save(graph, model, folder, compress=True)


def int8(graph: Traced, calibration: Batches, scratch: Path, folder: Path) -> dict[str, Any] | None:
    """Returns the chosen SmoothQuant alpha and the difference of each alpha, for the manifest.

    Of a file that nothing calibrates, only the weights are quantised.
    """
    if not calibration:
        int8_weights(graph, calibration, scratch, folder)
        return None
    start = time.process_time()
    model, alpha, differences = smooth_quant.best(partial(_base, graph, scratch), graph.judged, calibration)
    seconds = round(time.process_time() - start, 1)
    _save(graph, model, folder, compress=True)
    return {"smooth_quant_alpha": alpha, "rms_difference": differences, "cpu_seconds": seconds}


def int8_qat(graph: Traced, calibration: Batches, scratch: Path, folder: Path) -> None:
    """Copies the IR from the student's folder; training has already quantised the model."""
    import openvino as ov

    file = graph.folder / IN_STUDENT / TRAINED
    if not file.is_file():
        raise UserError(
            f"openvino_int8_qat needs a student trained with quantisers, and {graph.folder} has no {IN_STUDENT}/. "
            "Train the student with stages=quantised, or remove the variant."
        )
    _save(graph, ov.Core().read_model(file), folder, compress=True)


def _base(graph: Traced, scratch: Path) -> Any:
    """The fp32 model. It is converted once and read for each variant, because the quantisers change the model in place."""
    import openvino as ov

    file = scratch / file_of(graph)
    if not file.is_file():
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            model = ov.convert_model(graph.program)
        ov.save_model(set_names(graph, model), file, compress_to_fp16=False)
    return ov.Core().read_model(file)


def set_names(graph: Traced, model: Any) -> Any:
    """Give the inputs and the outputs of the converted model the graph's names."""
    for ports, names in ((model.inputs, graph.inputs), (model.outputs, graph.outputs)):
        for port, name in zip(ports, names, strict=True):
            port.get_tensor().set_names({name})
    return model


def _save(graph: Traced, model: Any, folder: Path, compress: bool) -> None:
    import openvino as ov

    ov.save_model(model, folder / file_of(graph), compress_to_fp16=compress)
    if isinstance(graph, Graph):
        _save_tokenizer(graph, folder)


def _save_tokenizer(graph: Graph, folder: Path) -> None:
    """Save the tokenizer as an IR if the IR gives the tokenizer's tokens. tokenizer.json exists in any case."""
    import openvino as ov
    from openvino_tokenizers import convert_tokenizer

    try:
        with warnings.catch_warnings(), quiet_logs("openvino_tokenizers"):
            warnings.simplefilter("ignore")
            # The converter ignores its option max_length; the tokenizer's setting decides the truncation.
            ir = convert_tokenizer(_convertible(graph), truncation=True)
        tokenizer = ov.compile_model(ir, "CPU")
        for texts in _PROBES:
            answer, expected = tokenizer(texts), graph.encode(texts)
            if not np.array_equal(answer["input_ids"], expected["input_ids"]):
                raise ValueError(f"it reads {texts[0][:40]!r} as other tokens")
    except Exception as error:  # an unsupported tokenizer may raise any exception
        log.info("no tokenizer IR in %s: %s. tokenizer.json is there.", folder.name, str(error).strip().splitlines()[0])
        return
    ov.save_model(ir, folder / TOKENIZER, compress_to_fp16=False)


def _convertible(graph: Graph) -> Any:
    """The tokenizer with special tokens renamed to a text that never occurs.

    The converter ignores split_special_tokens, so the name of a special token in a text would become that token.
    """
    tokenizer = graph.served_tokenizer
    kind = type(tokenizer)

    def added_tokens_decoder(self: Any) -> dict[int, Any]:
        tokens = kind.added_tokens_decoder.fget(self)
        return {i: AddedToken(_NEVER) if token.special else token for i, token in tokens.items()}

    tokenizer.__class__ = type(kind.__name__, (kind,), {"added_tokens_decoder": property(added_tokens_decoder)})
    return tokenizer
