"""Run as `python -m mangakd.export.worker_torch job.json`: as worker.py, with the student in PyTorch fp32."""

import sys
from pathlib import Path
from typing import Any

from mangakd.export.worker import OpenModel, serve


def student(job: dict[str, Any]) -> OpenModel:
    """Imports torch here, as variants import their backend when they are opened: the import is a part of the load time."""
    import torch

    from mangakd.export import student as students
    from mangakd.models.pooling import Pooling
    from mangakd.runtime.turns import Turns

    torch.set_num_threads(job["threads"])
    pooling = Pooling(**job["pooling"]) if job["pooling"] else None
    turns = job["turns"] and Turns.read(job["turns"])
    writing = students.Writing(job["max_new_tokens"], turns)
    source = students.read(Path(job["folder"]), job["max_length"], pooling, job["pairs"], writing)
    return OpenModel(source.encode, source.answer, source.numbers)


if __name__ == "__main__":
    serve(Path(sys.argv[1]), student)
