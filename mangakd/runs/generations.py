"""Texts that teacher, student and baseline write for the report, each model as soon as it is there."""

import logging
from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor

from mangakd.core.requires import Need
from mangakd.evaluation.generations import Generation, Text, save
from mangakd.models.encoder import Encoder
from mangakd.tasks.base import Samples
from mangakd.training.callbacks.progress import progress

log = logging.getLogger(__name__)


class Generations:
    """samples: what is asked; None where the task writes no texts. size: rows of the split. folder: of the run."""

    def __init__(self, samples: Samples | None, size: int, folder: Path, device: torch.device) -> None:
        self._samples, self._size, self._folder, self._device = samples, size, folder, device
        self._texts: dict[str, list[Mapping[str, Text]]] = {}

    @property
    def of_rows(self) -> bool:
        """Whether texts are written for rows of the split, and scored with them."""
        return self._samples is not None and self._samples.rows is not None

    @property
    def lists(self) -> dict[str, list[list[str]]]:
        """Model → the texts of each row of the split, where texts belong to rows."""
        samples = self._samples
        if samples is None or samples.rows is None:
            return {}
        return {name: samples.lists(texts, self._size) for name, texts in self._texts.items()}

    def add(self, name: str, models: list[Encoder]) -> dict[str, Tensor]:
        """Ask a model and write what is there. models: several, or none, have no text of their own.

        Returns the scores of the texts as answers to the rows (`Samples.answers`).
        """
        if self._samples is None or not self._samples.examples:
            return {}
        if len(models) != 1:
            log.info("the %s writes no texts for the report: it has %d models in memory, not one.", name, len(models))
            return {}
        model, need, device = models[0], models[0].need, next(models[0].parameters()).device
        with progress(f"texts of the {name}", len(self._samples.examples) * self._samples.ways) as advance:
            self._texts[name] = self._samples.write(model.to(self._device).require(Need(answer=True)), advance)
        model.to(device).require(need)
        rows = [{model: texts[i] for model, texts in self._texts.items()} for i in range(len(self._samples.examples))]
        save(self._folder, [Generation(*each) for each in zip(self._samples.examples, rows, strict=True)])
        return self._samples.answers(self._texts[name], self._size)
