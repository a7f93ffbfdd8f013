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

OFF = -1.0  # NNCF's word for no SmoothQuant
ALPHAS = (0.95, 0.8, 0.65, 0.5, OFF)


def best(base: Callable[[], Any], output: str, calibration: Batches) -> tuple[Any, float, dict[str, float]]:
    """The INT8 model whose alpha has the smallest root mean square of Δ output to fp32, that alpha, and what each of ALPHAS had.

    base: gives a fresh fp32 model. Each alpha is calibrated on all of `calibration` and judged on it. Calibrated on 64 texts
    instead of 300, another alpha looked best, and the largest Δ logit of a student was 1.7 times as large.
    """
    exact, differences, kept = _outputs(base(), output, calibration), dict[float, float](), None
    for alpha in ALPHAS:
        model = quantise(base(), calibration, alpha)
        delta = _outputs(model, output, calibration) - exact
        differences[alpha] = float(np.sqrt(np.mean(delta**2))) if np.isfinite(delta).all() else float("inf")
        if kept is None or differences[alpha] < differences[kept[1]]:
            kept = model, alpha
    assert kept is not None
    return *kept, {f"{alpha:g}": difference for alpha, difference in differences.items()}


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
