"""The names of files in a run's folder, and the rule for a finished run. Runs, sweeps and reports share them."""

import json
from pathlib import Path

COMMAND = "command.txt"  # the run's command
ERROR = "error.txt"  # why a run of a sweep failed
METRICS = "metrics.json"
PROVENANCE, PROVENANCE_PARTS = "provenance.json", "provenance_parts.json"  # what made the run, with hashes
CALIBRATION, SMOOTH = (
    "teacher/calibration_temperature",
    "teacher/smooth",
)  # metrics of a teacher with calibrate or smooth
LAST = "run/seconds"  # the metric that is written last


def metrics_of(folder: Path) -> dict[str, float]:
    """The metrics of a finished run; {} if the run has not finished or the folder is no run."""
    file = folder / METRICS
    metrics = json.loads(file.read_text()) if file.is_file() else {}
    return metrics if LAST in metrics else {}
