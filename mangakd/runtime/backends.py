"""Opens a model file as a function from named arrays to its outputs: onnxruntime or openvino, on the CPU.

Each backend is imported when it is needed, so one installed backend is enough. The functions may be called from several threads
at a time.
"""

import importlib
import threading
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from mangakd.core.errors import UserError
from mangakd.runtime.late_model import LateRun, Run
from mangakd.runtime.manifest import Manifest
from mangakd.runtime.signal_stack import keep_signal_stack
from mangakd.runtime.writer import Arrays, Ports, Writer


def open_model(manifest: Manifest, threads: int | None) -> Run:
    """Named int64 arrays (B, T) → float32 (B, C), or the token ids of a `Writer`.

    threads: for one batch; None lets the backend use all cores. A model of late interaction becomes a function of pairs.
    """
    decoding = manifest.decoding
    if decoding is None:
        one = open_ports(manifest, manifest.model, manifest.inputs, [manifest.output], threads)
        run = partial(_only, one)
        return run if manifest.late is None else LateRun(run)
    encoder = open_ports(manifest, manifest.model, manifest.inputs, decoding.crossed, threads)
    decoder = open_ports(manifest, manifest.folder / decoding.model, decoding.inputs, decoding.outputs, threads)
    return Writer(encoder, decoder, decoding)


def open_ports(
    manifest: Manifest, file: Path, inputs: Sequence[str], outputs: Sequence[str], threads: int | None
) -> Ports:
    """A file of the variant. Raises UserError if the backend cannot open it, or if it has other inputs or outputs."""
    opener = {"onnxruntime": _onnxruntime, "openvino": _openvino}[manifest.backend]
    package = import_backend(manifest.backend)
    try:
        return opener(package, file, inputs, outputs, threads)
    except UserError:
        raise
    except Exception as error:  # each backend has its own exceptions
        reason = next(iter(str(error).strip().splitlines()), type(error).__name__)
        raise UserError(
            f"{manifest.backend} {package.__version__} cannot open {file}: {reason}. It was exported with "
            f"{manifest.content.get('versions', {})}; install that version, or export the student again."
        ) from error


def _only(ports: Ports, arrays: Arrays) -> np.ndarray:
    return ports(arrays)[0]


def import_backend(backend: str) -> Any:
    try:
        return importlib.import_module(backend)
    except ImportError as error:
        raise UserError(
            f"this student needs {backend}, which cannot be imported ({error}). Install it with: pip install {backend}"
        ) from error


def _onnxruntime(ort: Any, file: Path, inputs: Sequence[str], outputs: Sequence[str], threads: int | None) -> Ports:
    options = ort.SessionOptions()
    options.intra_op_num_threads = threads or 0  # 0: all cores
    options.inter_op_num_threads = 1  # an encoder is a chain, so no operators can run in parallel
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")  # threads without work sleep
    options.log_severity_level = 3
    session = ort.InferenceSession(str(file), options, providers=["CPUExecutionProvider"])
    _same(file, inputs, outputs, [i.name for i in session.get_inputs()], [o.name for o in session.get_outputs()])
    names = list(outputs)
    return lambda arrays: session.run(names, arrays)


def _openvino(ov: Any, file: Path, inputs: Sequence[str], outputs: Sequence[str], threads: int | None) -> Ports:
    # f32: on processors with bf16 units openvino would compute in bf16 and exceed the tolerance.
    config: dict[str, Any] = {"PERFORMANCE_HINT": "LATENCY", "INFERENCE_PRECISION_HINT": "f32"}
    if threads is not None:
        config["INFERENCE_NUM_THREADS"] = threads
    with keep_signal_stack():
        model = ov.Core().compile_model(str(file), "CPU", config)
    names = [[name for port in ports for name in port.get_names()] for ports in (model.inputs, model.outputs)]
    _same(file, inputs, outputs, *names)
    own = threading.local()  # a request holds the tensors of one call

    def run(arrays: Arrays) -> list[np.ndarray]:
        if not hasattr(own, "request"):
            own.request = model.create_infer_request()
        own.request.infer(arrays)
        return [
            np.array(own.request.get_tensor(name).data) for name in outputs
        ]  # copies: the next call reuses the memory

    return run


def _same(file: Path, inputs: Sequence[str], outputs: Sequence[str], takes: list[str], gives: list[str]) -> None:
    if not set(inputs) <= set(takes) or not set(outputs) <= set(gives):
        raise UserError(
            f"{file} takes {takes} and gives {gives}; its manifest says {list(inputs)} and {', '.join(outputs)}. "
            "Export the student again."
        )
