"""`Exports`: the callbacks of export=[…] and the options that they share; and the data of a run that an export is judged on."""

from dataclasses import dataclass, replace
from pathlib import Path

from mangakd.core.errors import UserError
from mangakd.data.chat_tokens import Marked
from mangakd.data.rows import Rows
from mangakd.data.source import Corpus
from mangakd.evaluation import predictions
from mangakd.evaluation.served import Served
from mangakd.export.data import Data, of_run
from mangakd.export.language import variants as language_variants
from mangakd.export.language.data import CALIBRATION, MOST, LanguageData, LanguageSplit
from mangakd.export.run import Options
from mangakd.export.spread import spread
from mangakd.export.variants import Variant, find_variants
from mangakd.models import load
from mangakd.tasks.base import Task
from mangakd.training.callbacks.export import Export


@dataclass(frozen=True)
class Exports:
    """callbacks: none for export=[]."""

    callbacks: list[Export]
    options: Options

    @property
    def names(self) -> list[str]:
        """Of the variants."""
        return [name for callback in self.callbacks for name in callback.variants]

    @property
    def language(self) -> bool:
        """Whether the variants are those of language models. Raises UserError for some of both kinds."""
        kinds = {callback.language for callback in self.callbacks}
        if len(kinds) > 1:
            own, other = (
                ", ".join(each.variants[0] for each in self.callbacks if each.language is kind)
                for kind in (True, False)
            )
            raise UserError(
                f"export=[…] mixes variants of language models ({own}) with those of other students ({other}). Choose some of "
                "one kind: export=[merged,gguf,openvino_lm,vllm] for a language model, export=[openvino,onnx] for others."
            )
        return True in kinds

    @property
    def rows(self) -> list[Variant]:
        """Of students that are no language models. Raises UserError for variants that are unknown or named twice."""
        return [] if self.language or not self.callbacks else find_variants(self.names)

    @property
    def language_rows(self) -> list[language_variants.Variant]:
        """As `rows`, of language models."""
        return language_variants.find_variants(self.names) if self.language else []


def data_of(folder: Path, task: Task, corpus: Corpus) -> Data:
    """Texts of training, which calibrate, and validation and test of the run in `folder` as its task serves them."""
    train = task.served(corpus.train)
    texts = task.shown(corpus.train) if train is None else train.texts
    return of_run(
        folder, texts, {split: _served(folder, task, corpus.splits[split], split) for split in ("validation", "test")}
    )


def language_data_of(task: Task, corpus: Corpus, student: Path, max_length: int) -> LanguageData:
    """The sequences of a task whose models are language models, as the student in a folder reads them."""
    tokenizer = load.load_tokenizer(str(student), "student", "tokens")

    def sequences(rows: Rows, most: int) -> list[Marked]:
        return task.marked(rows.take(spread(range(len(rows)), most)), tokenizer, max_length)

    def split(name: str) -> LanguageSplit:
        return LanguageSplit(sequences(corpus.splits[name], MOST), f"the {name} split")

    return LanguageData(sequences(corpus.train, CALIBRATION), split("validation"), split("test"))


def _served(folder: Path, task: Task, rows: Rows, split: str) -> Served | None:
    """With the teacher's answers, where the run saved them for these rows."""
    served = task.served(rows)
    if served is None or not predictions.file_of(folder, split).is_file():
        return served
    saved = predictions.load(folder, split)
    same = saved.texts == task.shown(rows)
    same &= saved.lists == task.lists(rows)
    return replace(served, teacher=saved.answers.get("teacher") if same else None)
