"""`Exports`: the callbacks of export=[…] and the options that they share; and the data of a run that an export is judged on."""

from dataclasses import dataclass, replace
from pathlib import Path

from mangakd.data.rows import Rows
from mangakd.data.source import Corpus
from mangakd.evaluation import predictions
from mangakd.evaluation.served import Served
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
    texts = task.shown(corpus.train) if train is None else train.texts
    return of_run(
        folder, texts, {split: _served(folder, task, corpus.splits[split], split) for split in ("validation", "test")}
    )


def _served(folder: Path, task: Task, rows: Rows, split: str) -> Served | None:
    """With the teacher's answers, where the run saved them for these rows."""
    served = task.served(rows)
    if served is None or not predictions.file_of(folder, split).is_file():
        return served
    saved = predictions.load(folder, split)
    same = saved.texts == task.shown(rows)
    same &= saved.lists == task.lists(rows)
    return replace(served, teacher=saved.answers.get("teacher") if same else None)
