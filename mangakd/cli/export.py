"""`python scripts/export.py student=<folder>`: variants of a student, measured, and the one that ships, in export/ beside it.

Any Hugging Face folder of an encoder, or of an encoder–decoder that writes, will do, and with export=[merged,gguf] a language
model's (export_language.py). One that lies in a run's folder brings its
texts, labels and teacher along; for others texts=, validation= and test= are files.
"""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from hydra.utils import instantiate
from omegaconf import DictConfig, OmegaConf

from mangakd.cli import export_language
from mangakd.cli.exports import exports_of
from mangakd.cli.logs import start_logging
from mangakd.core.errors import UserError
from mangakd.core.invocation import command
from mangakd.data.columns import Column, table_rows
from mangakd.data.rows import ColumnKind
from mangakd.data.tables import existing, read_table, read_texts
from mangakd.evaluation import predictions
from mangakd.evaluation.report.export import FOLDER
from mangakd.evaluation.served import Served
from mangakd.export.checks import KEY, check_exports, writes
from mangakd.export.data import Data, Split, of_file, of_run, of_texts
from mangakd.export.graph import reads_pairs
from mangakd.export.variants import CALIBRATION
from mangakd.models import load
from mangakd.models.pooling import Pooling
from mangakd.runs.exports import data_of
from mangakd.runtime.tokenise import Text
from mangakd.tasks.base import Task
from mangakd.tasks.rerank.task import Rerank, check_row
from mangakd.training.callbacks.export import export_student

FILES = ("config.yaml", predictions.FOLDER)  # what a run's folder has beside student/


def run(config: DictConfig) -> None:
    """One export. Raises UserError for a folder, texts or options that cannot be used."""
    start_logging(None)
    student = _student(config.export.student)
    model = load.load_config(str(student), KEY) if (student / "config.json").is_file() else None
    folder = student.absolute().parent
    settings = _of_run(folder)
    exports = exports_of(config, None if settings is None else OmegaConf.select(settings, "data.max_length"))
    if not exports.callbacks:
        raise UserError("export=[] makes nothing: export=[openvino,onnx], or one of them.")
    out = Path(str(config.out)).expanduser() if config.out is not None else folder / FOLDER
    if exports.language:
        export_language.run(config, exports, student, out, settings)
        return
    if model is not None:
        check_exports(model, student)
    pooling = Pooling(config.pooling, bool(config.normalize)) if config.pooling is not None else None
    pairs = _pairs(config, student)
    truth: ColumnKind = "answer" if model is not None and writes(model) else "label"
    data = _data(config, folder, settings, any(row.calibrated for row in exports.rows), pairs, truth)
    export_student(exports.callbacks, student, out, data, exports.options, pooling, pairs)
    print(f"export/best is {out / 'best'}: {command('serve')} {out / 'best'}")


def _student(value: Any) -> Path:
    """The student's folder; of a run's folder, the student in it."""
    if value is None:
        raise UserError(f"student is not set: {command('export')} student=<folder>, a Hugging Face folder or a run.")
    folder = Path(str(value)).expanduser()
    if not folder.is_dir():
        raise UserError(
            f"student={value}: there is no such folder. Give a folder that save_pretrained wrote, or a run's."
        )
    inside = folder / "student"
    return inside if inside.is_dir() and not (folder / "config.json").is_file() else folder


def _of_run(folder: Path) -> DictConfig | None:
    """Its config, where the student lies in the folder of a run."""
    if not all((folder / name).exists() for name in FILES):
        return None
    return OmegaConf.load(folder / "config.yaml")  # type: ignore[return-value]


def _pairs(config: DictConfig, student: Path) -> bool:
    if not isinstance(config.pairs, bool | None):
        raise UserError(f"pairs={config.pairs} must be true, false, or null for what the folder says.")
    return reads_pairs(student) if config.pairs is None else config.pairs


def _data(
    config: DictConfig, folder: Path, settings: DictConfig | None, calibrated: bool, pairs: bool, truth: ColumnKind
) -> Data:
    """What files give, and the rest from the run; texts alone are shared out between calibration and comparison.

    truth: the kind of the column of labels.
    """
    texts: Sequence[Text] | None = None
    if config.texts is not None:
        path = str(config.texts)
        texts = (
            _ranking(path, "texts", config).texts
            if pairs
            else read_texts(path, config.text_column, "texts", "text_column")
        )
    validation, test = (
        None if config[key] is None else _split(str(config[key]), key, config, pairs, truth)
        for key in ("validation", "test")
    )
    if settings is not None:
        data = _data_of_run(folder, settings, calibrated and texts is None)
        validation, test = validation or data.validation, test or data.test
        texts = data.calibration if texts is None else texts
    if validation is None and texts is not None:
        return replace(of_texts(texts, CALIBRATION, f"texts={config.texts}"), test=test)
    if validation is None:
        raise UserError(
            f"texts is not set, and {folder} is no run that could give them: texts=<file> to calibrate and compare on (.txt with "
            "one a line, or a table), and validation=<file> with labels to score on."
        )
    return Data(texts or (), validation, test)


def _split(path: str, key: str, config: DictConfig, pairs: bool, truth: ColumnKind) -> Split:
    if not pairs:
        return of_file(path, key, config.text_column, config.label_column, truth)
    served = _ranking(path, key, config)
    return Split(served.texts, origin=f"{key}={path}", served=served)


def _ranking(path: str, key: str, config: DictConfig) -> Served:
    """A table of queries with their documents, and with grades where it has them. Raises UserError that names the row."""
    task, table = Rerank(), read_table(existing(path, key), key)
    columns = {
        name: Column(kind, config.columns[name], f"columns.{name}")
        for name, kind in task.columns.items()
        if name != "grades" or config.columns.grades in table.names
    }
    rows = table_rows(table, columns, f"{key}={path}")
    for i in range(len(rows) if "grades" in rows else 0):
        check_row(rows, i)
    return task.served(rows)


def _data_of_run(folder: Path, settings: DictConfig, calibrated: bool) -> Data:
    """The run's own data, read again where texts calibrate, and where predictions do not hold what the student is asked."""
    task: Task = instantiate(settings.task)
    if not calibrated and type(task).served is Task.served:
        return of_run(folder, ())
    try:
        return data_of(folder, task, instantiate(settings.data).load(task.columns, task.optional))
    except UserError as error:
        raise UserError(f"the run's training texts cannot be read again; give texts=<file>. {error}") from error
