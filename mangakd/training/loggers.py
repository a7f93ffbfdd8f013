"""`Continued`: one curve over several fits. Lightning's loggers count steps from 0 in each; a run's stages follow each other."""

from argparse import Namespace
from collections.abc import Sequence
from typing import Any

from lightning.pytorch.loggers import Logger
from lightning.pytorch.utilities import rank_zero_only


class Continued(Logger):
    """Hands everything to `loggers`, with the steps of the fits before added."""

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
        """A fit of so many steps has ended."""
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
