"""Quantisation-aware distillation: NNCF's fake quantisers in the student, while the same losses and teacher train it.

    forward: x̂ = s · round(clip(x, low, high) / s),  s = (high − low) / (levels − 1);   backward: as if round were not there

Places are those of post-training INT8 (weights per channel, activations per tensor, what attention needs left alone), ranges
start where training texts put them, and weights and ranges learn. SmoothQuant is off: it would rescale the student's own
weights, which are saved as they are. Source: Jacob et al. 2018; NNCF, https://github.com/openvinotoolkit/nncf
"""

import contextlib
import importlib.util
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from mangakd.core.errors import UserError
from mangakd.core.requires import Need
from mangakd.data.encoded import EncodedSplit
from mangakd.export.smooth_quant import quiet_nncf
from mangakd.export.spread import spread
from mangakd.export.variants import CALIBRATION, LEAST
from mangakd.models.encoder import Encoder
from mangakd.training.hardware import Hardware
from mangakd.training.stages import Stage

HOOKS = "__nncf_hooks"  # where NNCF keeps its modules in a model; in the names of their parameters
PACKAGES = ("nncf", "openvino")
BUILD = "NNCF_EXTENSION_LOAD_TIMEOUT"  # seconds; the first forward pass on a machine compiles NNCF's quantisers


@dataclass
class Quantised:
    """model: the Hugging Face model with its trained quantisers, once the stage has ended; None where it had none."""

    model: Any = None


def check(stages: Sequence[Stage], hardware: Hardware, rows: int) -> None:
    """Raises UserError where a stage is to be quantised and cannot be. rows: of the training split."""
    for stage in stages:
        if stage.quantise is None:
            continue
        key = f"{stage.key('quantise')}={stage.quantise}"
        missing = [package for package in PACKAGES if importlib.util.find_spec(package) is None]
        if missing:
            raise UserError(f"{key}: {', '.join(missing)} not installed. Install with: pip install 'mangakd[openvino]'")
        if stage is not stages[-1]:
            raise UserError(
                f"{key}: {stages[-1].name} follows it; what is trained after the quantisers does not know them. "
                "Let it be the last stage."
            )
        against = _against(hardware)
        if against:
            raise UserError(f"{key} does not go with {against}. Use another hardware profile, such as hardware=cpu.")
        if rows < LEAST:
            raise UserError(f"{key} needs {LEAST} training texts or more to find its ranges, and there are {rows}.")


def _against(hardware: Hardware) -> str:
    reasons = {
        "hardware.strategy=fsdp": hardware.strategy == "fsdp",  # shards lack whole tensors to take ranges of
        "hardware.compile=true": hardware.compile,  # NNCF calls its modules from a torch function mode
        "hardware.attention=eager": hardware.attention == "eager",  # quantisers would sit beside what is exported
        "hardware.accelerator=mps": hardware.kind == "mps",  # NNCF has kernels for CPU and CUDA
    }
    return ", ".join(reason for reason, holds in reasons.items() if holds)


@contextlib.contextmanager
def quantising(stage: Stage, student: Encoder, texts: EncodedSplit) -> Iterator[Quantised]:
    """Within it the student of such a stage has quantisers, calibrated on `texts` from end to end.

    Afterwards it is the plain model again, with the weights that were trained; `Quantised.model` is the one with quantisers. The
    same weights and texts give the same quantisers, so a checkpoint of the stage can be resumed.
    """
    found = Quantised()
    if stage.quantise is None:
        yield found
        return
    plain = student.require(Need(logits=True)).model
    student.model = _with_quantisers(student, texts)
    try:
        yield found
    finally:
        trained = student.require(Need(logits=True)).model
        student.model = plain
    plain.load_state_dict({name: value for name, value in trained.state_dict().items() if HOOKS not in name})
    found.model = trained


def _with_quantisers(student: Encoder, texts: EncodedSplit) -> Any:
    """A copy of the student's model."""
    import nncf
    from nncf.torch.extensions import ExtensionLoaderTimeoutException

    texts = texts.sequences
    rows = spread(range(len(texts)), CALIBRATION)
    # One text at a time: padding would have a part in the ranges.
    batches = [dict(texts.collate([row])["student"]) for row in rows]
    options = nncf.AdvancedQuantizationParameters(
        smooth_quant_alphas=nncf.AdvancedSmoothQuantParameters(convolution=-1, matmul=-1),
        # Weights keep to half their range: a CPU without units for INT8 adds pairs of products in 16 bits, which overflow.
        overflow_fix=nncf.OverflowFix.ENABLE,
    )
    os.environ.setdefault(BUILD, "900")  # its own minute is too short on a machine that has other work
    was_training = student.model.training
    try:
        with quiet_nncf():
            model = nncf.quantize(
                student.model.eval(), nncf.Dataset(batches), model_type=nncf.ModelType.TRANSFORMER,
                subset_size=len(batches), advanced_parameters=options,
            )  # fmt: skip
            model(**batches[0])  # compiles now, where it can be told
    except ExtensionLoaderTimeoutException as error:
        raise UserError(f"NNCF could not build its quantisers: {' '.join(str(error).split())}") from error
    return model.train(was_training)
