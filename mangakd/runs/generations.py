"""Texts that teacher, student and baseline write for the report, each model as soon as it is there."""

import logging
from collections.abc import Mapping
from pathlib import Path

import torch

from mangakd.core.requires import Need
from mangakd.evaluation.generations import Generation, Text, save
from mangakd.models.encoder import Encoder
from mangakd.tasks.base import Samples
from mangakd.training.callbacks.progress import progress

log = logging.getLogger(__name__)


class Generations:
    """samples: what is asked; None where the task writes no texts. folder: of the run."""

    def __init__(self, samples: Samples | None, folder: Path, device: torch.device) -> None:
        self._samples, self._folder, self._device = samples, folder, device
        self._texts: dict[str, list[Mapping[str, Text]]] = {}

    def add(self, name: str, models: list[Encoder]) -> None:
        """Ask a model and write what is there. models: several, or none, have no text of their own."""
        if self._samples is None or not self._samples.examples:
            return
        if len(models) != 1:
            log.info("the %s writes no texts for the report: it has %d models in memory, not one.", name, len(models))
            return
        model, need, device = models[0], models[0].need, next(models[0].parameters()).device
        with progress(f"texts of the {name}", len(self._samples.examples) * self._samples.ways) as advance:
            self._texts[name] = self._samples.write(model.to(self._device).require(Need(answer=True)), advance)
        model.to(device).require(need)
        rows = [{model: texts[i] for model, texts in self._texts.items()} for i in range(len(self._samples.examples))]
        save(self._folder, [Generation(*each) for each in zip(self._samples.examples, rows, strict=True)])
