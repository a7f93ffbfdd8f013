"""`mangakd export student=<folder> 'export=[merged,gguf]'`: variants of a language model, and the one that ships.

The folder may hold a whole model, or an adapter that names its base. One that lies in a run's folder brings its data along; for
others texts=, validation= and test= are files of prompts with answers, of messages, or of plain texts.
"""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from hydra.utils import instantiate
from omegaconf import DictConfig

from mangakd.core.errors import UserError
from mangakd.core.invocation import command
from mangakd.data.columns import Column, table_rows
from mangakd.data.rows import Rows
from mangakd.data.tables import existing, read_table, read_texts
from mangakd.export.language.data import CALIBRATION, MOST, LanguageData, LanguageSplit
from mangakd.export.language.student import read
from mangakd.export.language.variants import VARIANTS
from mangakd.export.spread import spread
from mangakd.models import load
from mangakd.runs.exports import Exports, language_data_of
from mangakd.tasks.response.encode import COLUMNS
from mangakd.tasks.response.task import Response
from mangakd.training.callbacks.export_language import data_of_texts, export_language


def run(config: DictConfig, exports: Exports, folder: Path, out: Path, settings: DictConfig | None) -> None:
    """settings: of the run whose student the folder is; None for others. Raises UserError for data that cannot be used."""
    student = read(folder)
    most = min(exports.options.max_length or student.context, student.context)
    record = export_language(exports.names, folder, out, _data(config, folder, most, settings), exports.options)
    serve = command("serve") if VARIANTS[record["chosen"]].engine == "llama.cpp" else "vllm serve"
    print(f"export/best is {out / 'best'}: {serve} {out / 'best'}")


def _data(config: DictConfig, folder: Path, most: int, settings: DictConfig | None) -> LanguageData:
    """What files give, and the rest from the run."""
    splits = {
        key: None
        if config[key] is None
        else LanguageSplit(_sequences(config, key, folder, most, MOST), f"{key}={config[key]}")
        for key in ("validation", "test")
    }
    texts = None if config.texts is None else _sequences(config, "texts", folder, most, CALIBRATION)
    if settings is not None and (splits["validation"] is None or splits["test"] is None):
        task = instantiate(settings.task)
        try:
            data = language_data_of(task, instantiate(settings.data).load(task.columns, task.optional), folder, most)
        except UserError as error:
            raise UserError(f"the run's data cannot be read again; give validation=<file>. {error}") from error
        return LanguageData(
            data.calibration if texts is None else texts,
            splits["validation"] or data.validation,
            splits["test"] or data.test,
        )
    if splits["validation"] is not None:
        return LanguageData(texts or [], splits["validation"], splits["test"])
    if config.texts is None:
        raise UserError(
            f"validation is not set, and {folder.absolute().parent} is no run that could give it: validation=<file> of prompts "
            "with answers, messages or texts, or texts=<file>, half of which decides."
        )
    own = data_of_texts(read_texts(str(config.texts), config.text_column, "texts", "text_column"), folder)
    return replace(own, test=splits["test"])


def _sequences(config: DictConfig, key: str, folder: Path, max_length: int, most: int) -> Sequence[Any]:
    """Of a file at most `most` rows, evenly spread."""
    rows = _rows(config, key)
    tokenizer = load.load_tokenizer(str(folder), "student", "tokens")
    return Response().marked(rows.take(spread(range(len(rows)), most)), tokenizer, max_length)


def _rows(config: DictConfig, key: str) -> Rows:
    """A table with some of the columns of task=response, or a .txt of texts. Raises UserError for a table without them."""
    path, origin = str(config[key]), f"{key}={config[key]}"
    if Path(path).suffix.lower() == ".txt":
        texts = read_texts(path, config.text_column, key, "text_column")
        return _filled(Rows({"text": list(texts)}, origin=origin))
    table = read_table(existing(path, key), key)
    names = {name: str(config.columns.get(name, name)) for name in COLUMNS} | {"text": str(config.text_column)}
    columns = {
        name: Column(COLUMNS[name], names[name], "text_column" if name == "text" else f"columns.{name}")
        for name in COLUMNS
        if names[name] in table.names
    }
    if not {"messages", "prompt", "text"} & columns.keys():
        raise UserError(
            f"{origin} has none of the columns {names['prompt']}, {names['messages']} and {names['text']}; found "
            f"{', '.join(table.names)}. Set text_column, or columns.prompt=<name>."
        )
    return _filled(table_rows(table, columns, origin))


def _filled(rows: Rows) -> Rows:
    """With empty cells in columns that the file lacks."""
    empty = {"messages": (), "context": ()}
    cells = {name: rows[name] if name in rows else [empty.get(name, "")] * len(rows) for name in COLUMNS}
    return replace(rows, columns=cells)
