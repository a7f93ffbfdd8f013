"""Full INT8 by NNCF, with the SmoothQuant alpha whose answers are nearest to the fp32 student's.

SmoothQuant moves a share alpha of the activations' spread into the weights: s_j = max|X_j|^alpha / max|W_j|^(1 − alpha). The
best share depends on the model: NNCF's default of 0.95 causes most of MiniLM's loss. The TRANSFORMER scheme skips the parts of
attention that need full precision: without the scheme accuracy fell from 90.5 to 80.7.
Source: SmoothQuant, https://arxiv.org/abs/2211.10438; NNCF, see to_openvino.py
"""

import contextlib
import io
import warnings
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np

from mangakd.export.traced import Batches, quiet_logs

OFF = -1.0  # NNCF's value for no SmoothQuant
ALPHAS = (0.95, 0.8, 0.65, 0.5, OFF)


def best(base: Callable[[], Any], outputs: Sequence[str], calibration: Batches) -> tuple[Any, float, dict[str, float]]:
    """Choose the alpha with the smallest root mean square of Δ output to fp32.

    Returns the INT8 model, its alpha, and the root mean square of each alpha. base: returns a fresh fp32 model. All of
    `calibration` calibrates and judges each alpha. With 64 texts instead of 300, another alpha looked best, and the largest
    Δ logit of a student was 1.7 times as large.
    """
    exact, differences, choice = _outputs(base(), outputs, calibration), dict[float, float](), None
    for alpha in ALPHAS:
        model = quantise(base(), calibration, alpha)
        delta = _outputs(model, outputs, calibration) - exact
        differences[alpha] = float(np.sqrt(np.mean(delta**2))) if np.isfinite(delta).all() else float("inf")
        if choice is None or differences[alpha] < differences[choice[1]]:
            choice = model, alpha
    assert choice is not None
    return *choice, {f"{alpha:g}": difference for alpha, difference in differences.items()}


def quantise(model: Any, calibration: Batches, alpha: float) -> Any:
    import nncf
    from nncf.quantization.advanced_parameters import AdvancedQuantizationParameters, AdvancedSmoothQuantParameters

    parameters = AdvancedQuantizationParameters(smooth_quant_alphas=AdvancedSmoothQuantParameters(matmul=alpha))
    with quiet_nncf():
        return nncf.quantize(
            model, nncf.Dataset(list(calibration)), model_type=nncf.ModelType.TRANSFORMER, subset_size=len(calibration),
            advanced_parameters=parameters,
        )  # fmt: skip


def _outputs(model: Any, outputs: Sequence[str], batches: Sequence[dict[str, np.ndarray]]) -> np.ndarray:
    """(N, C), or a row for each vector of a token or of a key, computed as mangakd.runtime.backends does."""
    import openvino as ov

    request = ov.compile_model(model, "CPU", {"INFERENCE_PRECISION_HINT": "f32"}).create_infer_request()
    rows = []
    for batch in batches:
        request.infer(batch)
        answers = [np.array(request.get_tensor(output).data) for output in outputs]
        rows += [answer.reshape(-1, answer.shape[-1]) for answer in answers]
    return np.concatenate(rows)


@contextlib.contextmanager
def quiet_nncf() -> Iterator[None]:
    """Context without NNCF's progress bars on stdout and without its advice in the log."""
    with contextlib.redirect_stdout(io.StringIO()), quiet_logs("nncf"), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield
