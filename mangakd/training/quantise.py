"""Quantisation-aware distillation: the student has NNCF's fake quantisers while the same losses and teacher train it.

    forward: x̂ = s · round(clip(x, low, high) / s),  s = (high − low) / (levels − 1);   backward: round has gradient 1

The quantisers have the places of post-training INT8: weights per channel, activations per tensor, without the parts of
attention that need full precision. Training texts set the initial ranges; weights and ranges learn. SmoothQuant is off, because
it would rescale the student's weights, which are saved. Source: Jacob et al. 2018; NNCF, https://github.com/openvinotoolkit/nncf
"""

import contextlib
import importlib.util
import logging
import os
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mangakd.core.errors import UserError
from mangakd.core.locks import waiting_lock
from mangakd.core.requires import Need
from mangakd.data.encoded import EncodedSplit
from mangakd.export.smooth_quant import quiet_nncf
from mangakd.export.spread import spread
from mangakd.export.variants import CALIBRATION, LEAST
from mangakd.models.encoder import Encoder
from mangakd.training.hardware import Hardware
from mangakd.training.stages import Stage

log = logging.getLogger(__name__)
HOOKS = "__nncf_hooks"  # the attribute of a model that holds NNCF's modules; a part of their parameters' names
PACKAGES = ("nncf", "openvino")
BUILD = "NNCF_EXTENSION_LOAD_TIMEOUT"  # seconds; the first forward pass on a machine compiles NNCF's quantisers
LEFTOVER = 300  # seconds; a compilation takes about one minute


@dataclass
class QuantisedModel:
    """model: the Hugging Face model with trained quantisers, after the stage. None if the stage does not quantise."""

    model: Any = None


def check(stages: Sequence[Stage], hardware: Hardware, rows: int) -> None:
    """Raises UserError if a stage asks for quantisation that is impossible. rows: of the training split."""
    for stage in stages:
        if stage.quantise is None:
            continue
        key = f"{stage.key('quantise')}={stage.quantise}"
        missing = [package for package in PACKAGES if importlib.util.find_spec(package) is None]
        if missing:
            raise UserError(f"{key}: {', '.join(missing)} not installed. Install with: pip install 'mangakd[openvino]'")
        if stage is not stages[-1]:
            raise UserError(
                f"{key}: {stages[-1].name} follows the stage and would train without the quantisers. Make the stage with "
                "quantise the last stage."
            )
        against = _against(hardware)
        if against:
            raise UserError(f"{key} does not work with {against}. Use another hardware profile, such as hardware=cpu.")
        if rows < LEAST:
            raise UserError(f"{key} needs {LEAST} training texts or more to find its ranges, and there are {rows}.")


def _against(hardware: Hardware) -> str:
    reasons = {
        "hardware.strategy=fsdp": hardware.strategy == "fsdp",  # a range needs the whole tensor
        "hardware.compile=true": hardware.compile,  # NNCF calls its modules from a torch function mode
        "hardware.attention=eager": hardware.attention == "eager",  # the export has other places for quantisers
        "hardware.accelerator=mps": hardware.kind == "mps",  # NNCF has kernels for CPU and CUDA
    }
    return ", ".join(reason for reason, holds in reasons.items() if holds)


@contextlib.contextmanager
def quantising(stage: Stage, student: Encoder, texts: EncodedSplit) -> Iterator[QuantisedModel]:
    """Context in which the student of a stage with `quantise` has quantisers, calibrated on rows from all of `texts`.

    Afterwards the student is the plain model with the trained weights, and `QuantisedModel.model` is the model with quantisers.
    The same weights and texts give the same quantisers, so a checkpoint of the stage can be resumed.
    """
    result = QuantisedModel()
    if stage.quantise is None:
        yield result
        return
    plain = student.require(Need(answer=True)).model
    student.model = _with_quantisers(student, texts)
    try:
        yield result
    finally:
        model = student.require(Need(answer=True)).model
        student.model = plain
    plain.load_state_dict({name: value for name, value in model.state_dict().items() if HOOKS not in name})
    result.model = model


@contextlib.contextmanager
def alone_in_build(folder: Path) -> Iterator[None]:
    """Let one process at a time compile NNCF's quantisers, in a folder below `folder`.

    torch marks a build with a file `lock`, which a killed process leaves behind, and every later process waits for its end. No
    other run builds while this context is held, so that such a file is a leftover, or another program's: the file is removed
    when it is LEFTOVER seconds old.
    """
    with waiting_lock(folder / "mangakd.lock", "compiling NNCF's quantisers"):
        for file in folder.glob("*/*/lock"):
            while (age := _age(file)) is not None and age < LEFTOVER:
                log.info("another process compiles NNCF's quantisers, or was killed meanwhile: waiting for %s", file)
                time.sleep(min(LEFTOVER - age, 10))
            file.unlink(missing_ok=True)
        yield


def _age(file: Path) -> float | None:
    """Seconds since a file was written; None if there is no such file."""
    try:
        return time.time() - file.stat().st_mtime
    except FileNotFoundError:
        return None


def _with_quantisers(student: Encoder, texts: EncodedSplit) -> Any:
    """A copy of the student's model, with quantisers."""
    import nncf
    from nncf.torch.extensions import ExtensionLoaderTimeoutException, get_build_directory_for_extension

    texts = texts.sequences
    rows = spread(range(len(texts)), CALIBRATION)
    # One text at a time: padding would affect the ranges.
    batches = [dict(texts.collate([row])["student"]) for row in rows]
    options = nncf.AdvancedQuantizationParameters(
        smooth_quant_alphas=nncf.AdvancedSmoothQuantParameters(convolution=-1, matmul=-1),
        # Weights use half their range: a CPU without INT8 units adds pairs of products in 16 bits, which could overflow.
        overflow_fix=nncf.OverflowFix.ENABLE,
    )
    os.environ.setdefault(BUILD, "900")  # NNCF's default of a minute is too short on a busy machine
    was_training = student.model.training
    try:
        with quiet_nncf():
            model = nncf.quantize(
                student.model.eval(), nncf.Dataset(batches), model_type=nncf.ModelType.TRANSFORMER,
                subset_size=len(batches), advanced_parameters=options,
            )  # fmt: skip
            with alone_in_build(Path(get_build_directory_for_extension("quantized_functions_cpu")).parents[1]):
                model(**batches[0])  # compiles the quantisers now, so that a failure is reported here
    except ExtensionLoaderTimeoutException as error:
        raise UserError(f"NNCF could not build its quantisers: {' '.join(str(error).split())}") from error
    return model.train(was_training)
