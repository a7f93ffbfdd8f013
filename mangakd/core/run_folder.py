"""What a run keeps of itself in its folder, by name, and when it counts as done: for the run, its sweep and its reports."""

import json
from pathlib import Path

COMMAND = "command.txt"  # what was typed for it
ERROR = "error.txt"  # why it failed, as a run of a sweep
METRICS = "metrics.json"
LAST = "run/seconds"  # the metric that is written when all others are


def metrics_of(folder: Path) -> dict[str, float]:
    """Those of a run that is done; {} for one that has not ended, or is none."""
    file = folder / METRICS
    metrics = json.loads(file.read_text()) if file.is_file() else {}
    return metrics if LAST in metrics else {}
