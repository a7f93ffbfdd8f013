"""OpenVINO variants: IR in fp32 and fp16, INT8 weights, and full INT8 by post-training quantisation.

Full INT8 is calibrated on training text (mangakd/export/smooth_quant.py). The tokenizer becomes an IR of its own. It is not
joined with the model: the joined graph answered an empty batch for some inputs, without an error.
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
from mangakd.export.graph import Batches, Graph, quiet_logs

MODEL, TOKENIZER = "openvino_model.xml", "openvino_tokenizer.xml"  # as optimum-intel names them
# In a student's folder: the IR of a stage that trained it with quantisers (export/quantised.py).
IN_STUDENT, TRAINED = "quantised", "model.xml"
_PROBES = (
    ["Don't ship the Café box to 東京, 12.50 €\tplease!", ""],
    ["a long text " * 400, "and", "short  ones"],
    ["[SEP] </s> a [MASK]<mask>"],
)
_NEVER = "\U0010fffe" * 2  # two code points that are no characters
log = logging.getLogger(__name__)


def fp32(graph: Graph, calibration: Batches, scratch: Path, folder: Path) -> None:
    _save(graph, _base(graph, scratch), folder, compress=False)


def fp16(graph: Graph, calibration: Batches, scratch: Path, folder: Path) -> None:
    """Weights in fp16; CPUs compute in fp32 all the same."""
    _save(graph, _base(graph, scratch), folder, compress=True)


def int8_weights(graph: Graph, calibration: Batches, scratch: Path, folder: Path) -> None:
    import nncf

    with smooth_quant.quiet_nncf():
        model = nncf.compress_weights(_base(graph, scratch), mode=nncf.CompressWeightsMode.INT8_ASYM)
    _save(graph, model, folder, compress=True)


def int8(graph: Graph, calibration: Batches, scratch: Path, folder: Path) -> dict[str, Any]:
    """Returns the SmoothQuant alpha that was chosen, and what was seen of the others."""
    start = time.process_time()
    model, alpha, differences = smooth_quant.best(partial(_base, graph, scratch), graph.output, calibration)
    seconds = round(time.process_time() - start, 1)
    _save(graph, model, folder, compress=True)
    return {"smooth_quant_alpha": alpha, "rms_difference": differences, "cpu_seconds": seconds}


def int8_qat(graph: Graph, calibration: Batches, scratch: Path, folder: Path) -> None:
    """The one that was made when the student was trained; nothing is quantised here."""
    import openvino as ov

    file = graph.folder / IN_STUDENT / TRAINED
    if not file.is_file():
        raise UserError(
            f"openvino_int8_qat needs a student that was trained with quantisers, and {graph.folder} has no {IN_STUDENT}/. "
            "Train it with stages=quantised, or leave the variant out."
        )
    _save(graph, ov.Core().read_model(file), folder, compress=True)


def _base(graph: Graph, scratch: Path) -> Any:
    """The fp32 model, converted once and read again for each variant, as the quantisers change it in place."""
    import openvino as ov

    file = scratch / MODEL
    if not file.is_file():
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            model = ov.convert_model(graph.program)
        ov.save_model(named(graph, model), file, compress_to_fp16=False)
    return ov.Core().read_model(file)


def named(graph: Graph, model: Any) -> Any:
    """The converted model with the graph's names on its inputs and its output."""
    for port, name in zip(model.inputs, graph.inputs, strict=True):
        port.get_tensor().set_names({name})
    model.outputs[0].get_tensor().set_names({graph.output})
    return model


def _save(graph: Graph, model: Any, folder: Path, compress: bool) -> None:
    import openvino as ov

    ov.save_model(model, folder / MODEL, compress_to_fp16=compress)
    _save_tokenizer(graph, folder)


def _save_tokenizer(graph: Graph, folder: Path) -> None:
    """As an IR beside the model, kept only where it says what the tokenizer says; tokenizer.json is there in any case."""
    import openvino as ov
    from openvino_tokenizers import convert_tokenizer

    try:
        with warnings.catch_warnings(), quiet_logs("openvino_tokenizers"):
            warnings.simplefilter("ignore")
            # Its option max_length changes nothing; the tokenizer says where it cuts.
            made = convert_tokenizer(_convertible(graph), truncation=True)
        compiled = ov.compile_model(made, "CPU")
        for texts in _PROBES:
            said, wanted = compiled(texts), graph.encode(texts)
            if not np.array_equal(said["input_ids"], wanted["input_ids"]):
                raise ValueError(f"it reads {texts[0][:40]!r} as other tokens")
    except Exception as error:  # kinds of tokenizer that it does not know raise whatever they stumble over
        log.info("no tokenizer IR in %s: %s. tokenizer.json is there.", folder.name, str(error).strip().splitlines()[0])
        return
    ov.save_model(made, folder / TOKENIZER, compress_to_fp16=False)


def _convertible(graph: Graph) -> Any:
    """The tokenizer with special tokens named by a text that does not occur.

    The converter ignores split_special_tokens; so where the tokens' own names stand in a text, they are text.
    """
    tokenizer = graph.served_tokenizer
    kind = type(tokenizer)

    def added_tokens_decoder(self: Any) -> dict[int, Any]:
        tokens = kind.added_tokens_decoder.fget(self)
        return {i: AddedToken(_NEVER) if token.special else token for i, token in tokens.items()}

    tokenizer.__class__ = type(kind.__name__, (kind,), {"added_tokens_decoder": property(added_tokens_decoder)})
    return tokenizer
