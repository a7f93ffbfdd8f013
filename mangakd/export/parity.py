"""Compares a variant that is being made with the student in PyTorch."""

from collections.abc import Sequence

import numpy as np

from mangakd.core.errors import UserError
from mangakd.core.numbers import largest, largest_difference
from mangakd.export.graph import Graph
from mangakd.runtime.backends import open_model
from mangakd.runtime.late_model import reader_of
from mangakd.runtime.manifest import Manifest
from mangakd.runtime.model import Model
from mangakd.runtime.tokenise import Text

BATCH = 7  # texts, an odd size


def difference(name: str, within: float, source: Graph, manifest: Manifest, texts: Sequence[Text]) -> float:
    """The largest |Δ output| of a variant to PyTorch, with the runtime's tokenizer and backend.

    within: largest allowed |Δ|, in shares of the largest output. Raises UserError if the difference of a precise variant is
    larger than rounding explains, and for another shape of answers.
    """
    model = open_unsealed(manifest)
    worst, size = 0.0, 1e-6
    for start in range(0, len(texts), BATCH):
        expected, answer = source.compared(model, texts[start : start + BATCH])
        if answer.shape != expected.shape:
            raise UserError(
                f"{name} answers in shape {answer.shape} where PyTorch answers in {expected.shape}; the variant is removed."
            )
        worst, size = max(worst, largest_difference(answer, expected)), largest([size, np.abs(expected).max(initial=0)])
    if not np.isfinite(worst):
        raise UserError(
            f"{name} answers some texts with NaN or infinity, where PyTorch answers up to {size:.3g}; the variant is "
            "removed. Leave it out, or report it with the model's config.json."
        )
    if not worst <= within * size:
        raise UserError(
            f"{name} differs from PyTorch by {worst:.3g} on outputs of up to {size:.3g}; it would not serve what was "
            "trained. Leave it out, or report it with the model's config.json."
        )
    return worst


def open_unsealed(manifest: Manifest) -> Model:
    """Open a variant as mangakd.runtime does, on one thread. The folder may be unsealed."""
    model = Model(manifest, reader_of(manifest), open_model(manifest, 1))
    model.check()
    return model
