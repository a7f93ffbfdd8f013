"""Where texts and labels come from: the synthetic MangaAssist corpus, CLINC150, your files, a hub data set."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.csv
import pyarrow.feather
import pyarrow.json
import pyarrow.parquet

from mangakd.core.errors import UserError, near
from mangakd.data import manga_corpus
from mangakd.data.source import Rows, Source, existing, names


@dataclass
class MangaIntent(Source):
    """The synthetic MangaAssist corpus: 10 intents, 25,000 / 3,000 / 3,000 utterances made by this package."""

    def __post_init__(self) -> None:
        self.ordered_labels = manga_corpus.INTENTS

    def read(self) -> dict[str, Rows]:
        return {name: self._split_rows(name) for name in ("train", "validation", "test")}

    def _split_rows(self, name: str) -> Rows:
        texts, labels = manga_corpus.make_split(name)
        return Rows(texts, [(label,) for label in labels], origin="synthetic MangaAssist corpus")


@dataclass
class Clinc150(Source):
    """CLINC150 as published (clinc/oos-eval): data.path is data_full.json, rows [text, intent]. Out-of-scope is left out."""

    def __post_init__(self) -> None:
        self.reads = ("path",)

    def read(self) -> dict[str, Rows]:
        file = existing(self.path, "data.path")
        content = _json(file, "data.path")
        keys = {"train": "train", "validation": "val", "test": "test"}
        if not isinstance(content, dict) or not set(keys.values()) <= set(content):
            found = list(content) if isinstance(content, dict) else type(content).__name__
            raise UserError(
                f"data.path={self.path} is not CLINC150's data_full.json: it must hold train, val, test; found {found}."
            )
        return {
            split: Rows(
                [row[0] for row in content[key]], [(row[1],) for row in content[key]], origin=f"{file.name}:{key}"
            )
            for split, key in keys.items()
        }


@dataclass
class Files(Source):
    """CSV, TSV, JSON (a list of objects), JSONL, Arrow, Feather or Parquet with a text and a label column.

    Several labels in one cell are a list (JSON, Arrow) or joined by `|` (CSV).
    """

    def __post_init__(self) -> None:
        self.reads = ("path", "val_path", "test_path")

    def read(self) -> dict[str, Rows]:
        given = {"train": self.path, "validation": self.val_path, "test": self.test_path}
        keys = {"train": "data.path", "validation": "data.val_path", "test": "data.test_path"}
        return {
            split: table_rows(
                read_table(existing(path, keys[split]), keys[split]), self.text_column, self.label_column, str(path)
            )
            for split, path in given.items()
            if path is not None or split == "train"
        }


@dataclass
class Hub(Source):
    """A data set on the Hugging Face hub: data.path is its id, `owner/name` or `owner/name:config`. Needs mangakd[hub]."""

    def __post_init__(self) -> None:
        self.reads = ("path",)

    def read(self) -> dict[str, Rows]:
        if self.path is None:
            raise UserError("data.path is not set: give the data set's hub id, for example data.path=owner/name.")
        try:
            import datasets
        except ImportError as error:
            raise UserError("data=hub needs the package datasets: pip install 'mangakd[hub]'") from error
        name, _, config = self.path.partition(":")
        try:
            loaded = (
                datasets.load_from_disk(name) if Path(name).is_dir() else datasets.load_dataset(name, config or None)
            )
        except Exception as error:  # datasets raises anything from OSError to its own classes
            raise UserError(
                f"data.path={self.path} could not be loaded from the hub: {str(error).splitlines()[0]}"
            ) from error
        aliases = {"train": ("train",), "validation": ("validation", "val", "dev"), "test": ("test",)}
        found = {split: next((loaded[a] for a in each if a in loaded), None) for split, each in aliases.items()}
        if found["train"] is None:
            raise UserError(f"data.path={self.path} has no train split; found {', '.join(loaded)}.")
        return {split: self._rows(part, f"{self.path}:{split}") for split, part in found.items() if part is not None}

    def _rows(self, part: Any, origin: str) -> Rows:
        rows = table_rows(part.data.table, self.text_column, self.label_column, origin)
        feature = part.features[self.label_column]
        feature = getattr(feature, "feature", feature)
        if hasattr(feature, "int2str"):
            rows = Rows(
                rows.texts, [tuple(feature.int2str(int(v)) for v in row) for row in rows.labels], rows.numbers, origin
            )
        return rows


def read_table(file: Path, key: str) -> pa.Table:
    """A table from a file by its ending. Raises UserError where it cannot be parsed."""
    try:
        match file.suffix.lower():
            case ".csv" | ".tsv":
                return _csv(file)
            case ".jsonl" | ".ndjson":
                return pyarrow.json.read_json(file)
            case ".json":
                content = _json(file, key)
                if not isinstance(content, list) or not all(isinstance(row, dict) for row in content):
                    raise UserError(f'{key}={file} must be a JSON list of objects such as {{"text": …, "label": …}}.')
                return pa.Table.from_pylist(content)
            case ".arrow" | ".feather":
                return _arrow(file)
            case ".parquet":
                return pyarrow.parquet.read_table(file)
    except (pa.ArrowInvalid, pa.ArrowTypeError, UnicodeDecodeError) as error:
        raise UserError(f"{key}={file} could not be read as {file.suffix}: {str(error).splitlines()[0]}") from error
    raise UserError(
        f"{key}={file}: unknown ending {file.suffix!r}; known: .csv .tsv .json .jsonl .arrow .feather .parquet."
    )


def table_rows(table: pa.Table, text: str, label: str, origin: str) -> Rows:
    """Texts and label names of two columns; rows are counted from 1, a header is not counted."""
    for column, key in ((text, "data.text_column"), (label, "data.label_column")):
        if column not in table.column_names:
            raise UserError(
                f"{origin} has no column {column!r} ({key}); it has {', '.join(table.column_names)}"
                f"{near(column, table.column_names)}"
            )
    texts = ["" if value is None else str(value) for value in table[text].to_pylist()]
    labels = [names(value) for value in table[label].to_pylist()]
    return Rows(texts, labels, list(range(1, len(texts) + 1)), origin)


def _csv(file: Path) -> pa.Table:
    # All columns as text: a label column of digits must stay the names "0", "1", and "NA" is a text like any other.
    header = pyarrow.csv.open_csv(file, parse_options=_parse(file)).schema.names
    convert = pyarrow.csv.ConvertOptions(column_types={name: pa.string() for name in header}, strings_can_be_null=False)
    return pyarrow.csv.read_csv(file, parse_options=_parse(file), convert_options=convert)


def _parse(file: Path) -> pyarrow.csv.ParseOptions:
    return pyarrow.csv.ParseOptions(delimiter="\t" if file.suffix.lower() == ".tsv" else ",", newlines_in_values=True)


def _arrow(file: Path) -> pa.Table:
    with pa.memory_map(str(file)) as source:
        try:
            return pa.ipc.open_file(source).read_all()
        except pa.ArrowInvalid:
            return pa.ipc.open_stream(source).read_all()


def _json(file: Path, key: str) -> Any:
    try:
        return json.loads(file.read_text(encoding="utf-8"))
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise UserError(f"{key}={file} is not JSON: {error}. Is it JSONL? Then give it the ending .jsonl.") from error
