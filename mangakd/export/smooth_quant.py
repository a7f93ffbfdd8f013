"""Full INT8 by NNCF, with the SmoothQuant alpha that keeps this student's answers nearest to fp32.

SmoothQuant moves a share alpha of the activations' spread into the weights: s_j = max|X_j|^alpha / max|W_j|^(1 − alpha). Which
share is best depends on the model: NNCF's default of 0.95 costs MiniLM most of what INT8 loses. The TRANSFORMER scheme leaves
alone what attention needs in full precision: without it accuracy fell from 90.5 to 80.7.
Source: SmoothQuant, https://arxiv.org/abs/2211.10438; NNCF, see to_openvino.py
"""

import contextlib
import io
import warnings
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np

from mangakd.export.graph import Batches, quiet_logs
from mangakd.export.spread import spread

OFF = -1.0  # NNCF's word for no SmoothQuant
ALPHAS = (0.5, 0.3, 0.7, 0.95, OFF)
TRIED = 64  # texts that each alpha is calibrated on, and as many others that it is judged on


def choose(base: Callable[[], Any], output: str, calibration: Batches) -> tuple[float, dict[str, float]]:
    """The alpha with the smallest root mean square of Δ output to fp32, and what each of ALPHAS had.

    base: gives a fresh fp32 model. Each is calibrated on every other of 2 · TRIED texts and judged on those between.
    """
    some = spread(calibration, 2 * TRIED)
    calibrated, judged = some[::2], some[1::2]
    exact = _outputs(base(), output, judged)
    differences = {}
    for alpha in ALPHAS:
        delta = _outputs(quantise(base(), calibrated, alpha), output, judged) - exact
        differences[f"{alpha:g}"] = float(np.sqrt(np.mean(delta**2))) if np.isfinite(delta).all() else float("inf")
    best = min(ALPHAS, key=lambda alpha: differences[f"{alpha:g}"])
    return best, differences


def quantise(model: Any, calibration: Batches, alpha: float) -> Any:
    import nncf
    from nncf.quantization.advanced_parameters import AdvancedQuantizationParameters, AdvancedSmoothQuantParameters

    advanced = AdvancedQuantizationParameters(smooth_quant_alphas=AdvancedSmoothQuantParameters(matmul=alpha))
    with quiet_nncf():
        return nncf.quantize(
            model, nncf.Dataset(list(calibration)), model_type=nncf.ModelType.TRANSFORMER, subset_size=len(calibration),
            advanced_parameters=advanced,
        )  # fmt: skip


def _outputs(model: Any, output: str, batches: Sequence[dict[str, np.ndarray]]) -> np.ndarray:
    """(N, C), computed as mangakd.runtime.backends does."""
    import openvino as ov

    request = ov.compile_model(model, "CPU", {"INFERENCE_PRECISION_HINT": "f32"}).create_infer_request()
    return np.concatenate([np.array(request.infer(batch)[output]) for batch in batches])


@contextlib.contextmanager
def quiet_nncf() -> Iterator[None]:
    """NNCF draws bars on stdout and logs its advice."""
    with contextlib.redirect_stdout(io.StringIO()), quiet_logs("nncf"), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield
