"""Run as `python -m mangakd.export.worker_torch job.json`: the student itself in PyTorch fp32, asked as the variants are."""

import sys
from pathlib import Path
from typing import Any

from mangakd.export.worker import Opened, serve


def student(job: dict[str, Any]) -> Opened:
    """torch is imported here, as the variants' backends are where they are opened: loading it is part of loading a model."""
    import torch

    from mangakd.export import graph
    from mangakd.export.pooling import Pooling

    torch.set_num_threads(job["threads"])
    pooling = Pooling(**job["pooling"]) if job["pooling"] else None
    source = graph.read(Path(job["folder"]), job["max_length"], pooling)
    return Opened(source.encode, source.answer)


if __name__ == "__main__":
    serve(Path(sys.argv[1]), student)
