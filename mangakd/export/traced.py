"""What a maker converts: a module that torch.export has traced, with the names of its inputs and outputs.

A student is one such file, or, where it writes, an encoder and a decoder (mangakd/export/seq2seq.py).
"""

import contextlib
import logging
import warnings
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor

from mangakd.core.errors import UserError
from mangakd.runtime.tokenise import Text

Batches = Sequence[dict[str, np.ndarray]]
BATCH, SEQUENCE = "batch", "sequence"


class Traced(Protocol):
    """folder: of the student. stem: of the name of its file. axes: input or output → names of its dynamic axes, None for others.

    judged: outputs that say how close a quantised model is. readings: what the file reads of texts, to calibrate it; none where
    its weights alone are quantised.
    """

    @property
    def folder(self) -> Path: ...
    @property
    def stem(self) -> str: ...
    @property
    def inputs(self) -> tuple[str, ...]: ...
    @property
    def outputs(self) -> tuple[str, ...]: ...
    @property
    def judged(self) -> tuple[str, ...]: ...
    @property
    def axes(self) -> Mapping[str, Sequence[str | None]]: ...
    @property
    def program(self) -> torch.export.ExportedProgram: ...
    def readings(self, texts: Sequence[Text]) -> Batches: ...


def trace(module: Any, example: tuple[Tensor, ...], shapes: Any, folder: Path) -> torch.export.ExportedProgram:
    """The program of a module. shapes: as torch.export takes them. Raises UserError if a size cannot be dynamic."""
    try:
        with torch.no_grad(), warnings.catch_warnings(), quiet_logs("torch"):
            warnings.simplefilter("ignore")
            return torch.export.export(module, example, dynamic_shapes=shapes)
    except Exception as error:  # torch raises a dozen private exception types
        raise UserError(
            f"{folder} ({module.model.config.model_type}) cannot be traced by torch.export: "
            f"{str(error).strip().splitlines()[0]} Its architecture computes sizes from values; "
            "serve the Hugging Face folder itself."
        ) from error


@contextlib.contextmanager
def quiet_logs(*names: str) -> Iterator[None]:
    """Context in which these loggers log errors only: exporters warn about packages that no encoder needs."""
    before = {name: logging.getLogger(name).level for name in names}
    for name in names:
        logging.getLogger(name).setLevel(logging.ERROR)
    try:
        yield
    finally:
        for name, level in before.items():
            logging.getLogger(name).setLevel(level)
