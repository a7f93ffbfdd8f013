"""`Exports`: the callbacks of export=[…] and the options that they share; and the data of a run that an export is judged on."""

from dataclasses import dataclass
from pathlib import Path

from mangakd.data.rows import inputs
from mangakd.data.source import Corpus
from mangakd.export.data import Data, of_run
from mangakd.export.run import Options
from mangakd.export.variants import Variant, find_variants
from mangakd.tasks.base import Task
from mangakd.training.callbacks.export import Export


@dataclass(frozen=True)
class Exports:
    """callbacks: none for export=[]."""

    callbacks: list[Export]
    options: Options

    @property
    def rows(self) -> list[Variant]:
        """Raises UserError for variants that are unknown or named twice, and for packages that are not installed."""
        return find_variants([name for callback in self.callbacks for name in callback.variants])


def data_of(folder: Path, task: Task, corpus: Corpus) -> Data:
    """Texts of training, which calibrate, and validation and test of the run in `folder` as its task serves them."""
    train = task.served(corpus.train)
    texts = corpus.train[inputs(task.columns)[0]] if train is None else train.texts
    return of_run(folder, texts, {split: task.served(corpus.splits[split]) for split in ("validation", "test")})
