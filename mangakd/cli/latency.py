"""How long the student of a run takes for one text, or for one query with its documents, on this machine."""

import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
from omegaconf import OmegaConf

from mangakd.core import cpu
from mangakd.core.errors import UserError
from mangakd.evaluation import predictions
from mangakd.evaluation.predictions import Predictions
from mangakd.export import graph
from mangakd.export.graph import Graph
from mangakd.runtime.tokenise import Text

WARM_UP, TEXTS, MAX_LENGTH = 20, 200, 128


def latency(folder: Path) -> dict[str, Any]:
    """Milliseconds from a test text to its answer, one text at a time, on one thread. A ranker is asked one query at a time, with
    all its documents."""
    if not (folder / "student").is_dir():
        raise UserError(f"{folder} has no student/, so its latency cannot be measured; leave latency=true out.")
    questions = _questions(predictions.load(folder, "test"))
    questions = [questions[i] for i in np.linspace(0, len(questions) - 1, TEXTS).astype(int)]
    student = graph.read(folder / "student", _max_length(folder))
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        times = _timed(student, questions)
    finally:
        torch.set_num_threads(before)
    p50, p95 = np.percentile(times, [50, 95])
    what = "one query with all its documents" if student.pairs else "one text"
    return {"p50_ms": p50, "p95_ms": p95, "texts": len(questions), "threads": 1, "machine": cpu.name(), "what": what}


def _questions(test: Predictions) -> list[list[Text]]:
    """What a model is asked at a time: a text, or pairs of a query with each of its documents."""
    documents = next(iter(test.lists.values()), None) if test.head.kind == "score" else None
    if documents is None:
        return [[text] for text in test.texts]
    return [[(query, document) for document in each] for query, each in zip(test.texts, documents, strict=True)]


def _timed(student: Graph, questions: list[list[Text]]) -> list[float]:
    """The first ones warm up."""
    times = []
    for question in [*questions[:WARM_UP], *questions]:
        start = time.perf_counter()
        student.answer(student.encode(question))
        times.append(1000 * (time.perf_counter() - start))
    return times[min(WARM_UP, len(questions)) :]


def _max_length(folder: Path) -> int:
    file = folder / "config.yaml"
    return (
        OmegaConf.select(OmegaConf.load(file), "data.max_length", default=MAX_LENGTH) if file.is_file() else MAX_LENGTH
    )
