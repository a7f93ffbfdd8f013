"""How long the student of a run takes for one text on this machine."""

import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
from omegaconf import OmegaConf

from mangakd.core import cpu
from mangakd.core.errors import UserError
from mangakd.evaluation import predictions
from mangakd.models import load

WARM_UP, TEXTS, MAX_LENGTH = 20, 200, 128


def latency(folder: Path) -> dict[str, Any]:
    """Milliseconds from a test text to its answer, one text at a time, on one thread."""
    path = str(folder / "student")
    if not Path(path).is_dir():
        raise UserError(f"{folder} has no student/, so its latency cannot be measured; leave latency=true out.")
    texts = predictions.load(folder, "test").texts
    texts = [texts[i] for i in np.linspace(0, len(texts) - 1, TEXTS).astype(int)]
    model = load.trained_classifier(path, "run")
    assert model is not None, "the student of a run has a head"
    tokenizer = load.load_tokenizer(path, "run")
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        times = _timed(model.eval(), tokenizer, texts, _max_length(folder))
    finally:
        torch.set_num_threads(before)
    p50, p95 = np.percentile(times, [50, 95])
    return {"p50_ms": p50, "p95_ms": p95, "texts": len(texts), "threads": 1, "machine": cpu.name()}


def _timed(model: Any, tokenizer: Any, texts: list[str], max_length: int) -> list[float]:
    times = []
    with torch.inference_mode():
        for text in [*texts[:WARM_UP], *texts]:
            start = time.perf_counter()
            model(**tokenizer(text, truncation=True, max_length=max_length, return_tensors="pt")).logits.argmax(
                -1
            ).item()
            times.append(1000 * (time.perf_counter() - start))
    return times[min(WARM_UP, len(texts)) :]


def _max_length(folder: Path) -> int:
    file = folder / "config.yaml"
    return (
        OmegaConf.select(OmegaConf.load(file), "data.max_length", default=MAX_LENGTH) if file.is_file() else MAX_LENGTH
    )
