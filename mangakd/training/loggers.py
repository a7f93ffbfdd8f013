"""One curve for a whole run, over all stages and over all starts of a resumed run.

`RunLogger` adds the steps of earlier stages, because Lightning's loggers count steps from 0 in each fit. `KeptCsv` appends to
an existing metrics.csv, which Lightning's CSVLogger deletes.
"""

import csv
import warnings
from argparse import Namespace
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from lightning.pytorch.loggers import CSVLogger, Logger
from lightning.pytorch.loggers.logger import rank_zero_experiment
from lightning.pytorch.utilities import rank_zero_only


class RunLogger(Logger):
    """Forwards everything to `loggers`, and adds the steps of earlier fits to `step`."""

    def __init__(self, loggers: Sequence[Logger], hyperparameters: dict[str, Any]) -> None:
        super().__init__()
        self._loggers, self._offset = loggers, 0
        self.log_hyperparams(hyperparameters)

    @property
    def name(self) -> str:
        return "mangakd"

    @property
    def version(self) -> int:
        return 0

    def move_on(self, steps: int) -> None:
        """Add the steps of a fit that has ended."""
        self._offset += steps

    @rank_zero_only
    def log_metrics(self, metrics: dict[str, float], step: int | None = None) -> None:
        for logger in self._loggers:
            logger.log_metrics(metrics, None if step is None else step + self._offset)

    @rank_zero_only
    def log_hyperparams(self, params: dict[str, Any] | Namespace, *args: Any, **kwargs: Any) -> None:
        for logger in self._loggers:
            logger.log_hyperparams(params)

    def save(self) -> None:
        for logger in self._loggers:
            logger.save()

    @rank_zero_only
    def finalize(self, status: str) -> None:
        for logger in self._loggers:
            logger.finalize(status)


class KeptCsv(CSVLogger):
    """Appends to the metrics.csv of a resumed run. Removes the rows of steps that the resumed run repeats."""

    _resumed = False

    @property
    @rank_zero_experiment
    def experiment(self) -> Any:
        if self._experiment is not None:
            return self._experiment
        # CSVLogger deletes metrics.csv here, so the file moves away. After a kill in between, the moved file is still there.
        aside = self._file.with_suffix(".earlier")
        if self._file.is_file():
            self._file.replace(aside)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # the warning that earlier files will be deleted: they are not
            writer = super().experiment
        if aside.is_file():
            aside.replace(self._file)
            with self._file.open(newline="") as file:
                writer.metrics_keys = next(csv.reader(file), [])
            self._resumed = bool(writer.metrics_keys)
        return writer

    @property
    def _file(self) -> Path:
        return Path(self.log_dir) / "metrics.csv"

    @rank_zero_only
    def log_metrics(self, metrics: dict[str, Any], step: int | None = None) -> None:
        keys = self.experiment.metrics_keys
        if self._resumed and step is not None:
            self._resumed = False
            with self._file.open(newline="") as file:
                rows = [row for row in csv.DictReader(file) if int(row["step"]) < step]
            scratch = self._file.with_suffix(".writing")
            with scratch.open("w", newline="") as file:
                table = csv.DictWriter(file, keys)
                table.writeheader()
                table.writerows(rows)
            scratch.replace(self._file)
        super().log_metrics(metrics, step)
