"""Where texts and labels come from: the synthetic MangaAssist corpora, CLINC150, your files, a hub data set."""

from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from mangakd.core.errors import UserError
from mangakd.data.columns import table_rows
from mangakd.data.rows import Rows
from mangakd.data.source import Source
from mangakd.data.split import KEYS
from mangakd.data.tables import Table, existing, read_json, read_table
from mangakd.shop import manga_answers, manga_corpus, manga_rewrites, manga_search

SPLIT_NAMES = {
    "train": "train", "training": "train", "validation": "validation", "valid": "validation", "val": "validation",
    "dev": "validation", "test": "test", "evaluation": "test",
}  # fmt: skip
"""What a column of splits may say → the split."""
COLUMNS = ("text_column", "label_column", "columns")


@dataclass
class MangaIntent(Source):
    """The synthetic MangaAssist corpus: 10 intents, 25,000 / 3,000 / 3,000 utterances made by this package.

    unlabelled: how many more of its utterances come without a label, up to 200,000.
    """

    unlabelled: int = 0

    def __post_init__(self) -> None:
        self.ordered_labels = manga_corpus.INTENTS

    def read(self) -> dict[str, Rows]:
        return {name: self._split_rows(name) for name in ("train", "validation", "test")}

    def more_texts(self) -> list[str]:
        most = manga_corpus.SIZES["unlabelled"]
        if not isinstance(self.unlabelled, int) or not 0 <= self.unlabelled <= most:
            raise UserError(f"data.unlabelled={self.unlabelled} must be a whole number from 0 to {most}.")
        more = manga_corpus.make_split("unlabelled", self.unlabelled)[0] if self.unlabelled else []
        return [*super().more_texts(), *more]

    def _split_rows(self, name: str) -> Rows:
        texts, intents = _manga(name)
        columns: dict[str, list[Any]] = {"text": list(texts), "label": [(intent,) for intent in intents]}
        return Rows(columns, origin="synthetic MangaAssist corpus")


@cache
def _manga(split: str) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """A whole split, made once for all runs of a process, such as a sweep's.

    Limits make it no shorter: they take rows from all of it, and no row can be made without those before it.
    """
    texts, intents = manga_corpus.make_split(split)
    return tuple(texts), tuple(intents)


@dataclass
class MangaSearch(Source):
    """The synthetic MangaAssist search corpus: 8,000 / 500 / 1,000 questions, each with ten pages of a catalogue, graded.

    Tasks of one text and its answer get each question as `anchor` and its best page as `positive`.
    documents: how many of the ten each question keeps, the best page among them.
    """

    documents: int = manga_search.CANDIDATES

    def read(self) -> dict[str, Rows]:
        most = manga_search.CANDIDATES
        if not isinstance(self.documents, int) or not 2 <= self.documents <= most:
            raise UserError(f"data.documents={self.documents} must be a whole number from 2 to {most}.")
        return {name: self._split_rows(name) for name in ("train", "validation", "test")}

    def _split_rows(self, name: str) -> Rows:
        queries, documents, grades = _search(name)
        groups = [manga_search.fewer(*group, self.documents) for group in zip(documents, grades, strict=True)]
        documents, grades = (list(side) for side in zip(*groups, strict=True))
        best = [pages[marks.index(max(marks))] for pages, marks in zip(documents, grades, strict=True)]
        columns: dict[str, list[Any]] = {
            "query": [*queries], "documents": [*documents], "grades": [*grades], "anchor": [*queries], "positive": best,
        }  # fmt: skip
        return Rows(columns, origin="synthetic MangaAssist search corpus")


@cache
def _search(split: str) -> tuple[list[Any], ...]:
    """A whole split, made once for all runs of a process."""
    return manga_search.make_split(split)


@dataclass
class MangaAnswers(Source):
    """The synthetic MangaAssist answers: 2,000 / 150 / 300 questions to the shop, some with a passage, each with its answer."""

    def read(self) -> dict[str, Rows]:
        return {name: self._split_rows(name) for name in ("train", "validation", "test")}

    def _split_rows(self, name: str) -> Rows:
        prompts, contexts, answers = zip(*manga_answers.make_split(name), strict=True)
        columns: dict[str, list[Any]] = {"prompt": [*prompts], "context": [*contexts], "answer": [*answers]}
        return Rows(columns, origin="synthetic MangaAssist answers")


@dataclass
class MangaRewrites(Source):
    """The synthetic MangaAssist conversations: 4,000 / 200 / 800 turns, each with its rewrite, or three rewrites of a search.

    Column `answer` is what the shop answers, so that a search with the rewrite can be scored.
    """

    def read(self) -> dict[str, Rows]:
        return {name: self._split_rows(name) for name in ("train", "validation", "test")}

    def _split_rows(self, name: str) -> Rows:
        turns = manga_rewrites.make_split(name)
        columns: dict[str, list[Any]] = {
            "conversation": [str(turn.conversation) for turn in turns], "history": [turn.history for turn in turns],
            "utterance": [turn.utterance for turn in turns], "rewrite": [turn.rewrites for turn in turns],
            "answer": [turn.answer for turn in turns], "source": [turn.subject for turn in turns],
        }  # fmt: skip
        return Rows(columns, origin="synthetic MangaAssist conversations")


@dataclass
class Clinc150(Source):
    """CLINC150 as published (clinc/oos-eval): data.path is data_full.json, rows [text, intent]. Out-of-scope is left out."""

    def __post_init__(self) -> None:
        self.reads = ("path",)

    def read(self) -> dict[str, Rows]:
        file = existing(self.path, "data.path")
        content = read_json(file, "data.path")
        keys = {"train": "train", "validation": "val", "test": "test"}
        if not isinstance(content, dict) or not set(keys.values()) <= set(content):
            entries = ", ".join(map(str, content)) if isinstance(content, dict) else type(content).__name__
            raise UserError(
                f"data.path={self.path} is not CLINC150's data_full.json: it must hold train, val, test; found {entries}. "
                "For other files use data=files."
            )
        return {split: _pairs(content[key], f"{file.name}:{key}") for split, key in keys.items()}


def _pairs(rows: Any, origin: str) -> Rows:
    good = isinstance(rows, list) and all(isinstance(r, list) and len(r) == 2 for r in rows)
    if not good or not all(isinstance(value, str) for row in rows for value in row):
        raise UserError(f"data.path: {origin} must be a list of [text, intent]; is this CLINC150's data_full.json?")
    return Rows({"text": [text for text, _ in rows], "label": [(intent,) for _, intent in rows]}, origin=origin)


@dataclass
class Files(Source):
    """CSV, TSV, JSON (a list of objects), JSONL, Arrow, Feather or Parquet with the task's columns.

    Several labels in one cell are a list (JSON, Arrow, Parquet) or joined by `|` (CSV, TSV). Rules: docs/reference/data.md.
    split_column: a column of `path` that says for each row which split it belongs to, under a name of SPLIT_NAMES.
    """

    split_column: str | int | None = None

    def __post_init__(self) -> None:
        self.reads = ("path", "val_path", "test_path", *COLUMNS)

    def read(self) -> dict[str, Rows]:
        if self.split_column is not None:
            return self._by_column()
        given = {"train": self.path, "validation": self.val_path, "test": self.test_path}
        return {
            split: self._rows(path, KEYS[split])
            for split, path in given.items()
            if path is not None or split == "train"
        }

    def _rows(self, path: str | None, key: str) -> Rows:
        table = read_table(existing(path, key), key)
        return table_rows(table, self.in_table(table), f"{key}={path}")

    def _by_column(self) -> dict[str, Rows]:
        """The rows of one file by the names in its column of splits."""
        if self.val_path is not None or self.test_path is not None:
            raise UserError(
                f"data.split_column={self.split_column} splits data.path, and data.val_path or data.test_path names another "
                "file. Set one or the other."
            )
        key, origin = "data.split_column", f"data.path={self.path}"
        table = read_table(existing(self.path, "data.path"), "data.path")
        names = table.column(table.named(self.split_column, key, origin))
        places: dict[str, list[int]] = {}
        for i, name in enumerate(names):
            split = SPLIT_NAMES.get(str(name).strip().casefold())
            if split is None:
                raise UserError(
                    f"{table.unit} {table.numbers[i]} of {origin} has {name!r} in its column {self.split_column}, which is none "
                    f"of {', '.join(SPLIT_NAMES)}. Correct it, or split the file yourself: data.val_path, data.test_path."
                )
            places.setdefault(split, []).append(i)
        rows = table_rows(table, self.in_table(table), origin)
        return {split: rows.take(some) for split, some in {"train": [], **places}.items()}


@dataclass
class Hub(Source):
    """A data set on the Hugging Face hub: data.path is its id, `owner/name` or `owner/name:config`. Needs mangakd[hub]."""

    def __post_init__(self) -> None:
        self.reads = ("path", *COLUMNS)

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
            where = "this folder" if Path(name).is_dir() else "the hub"
            raise UserError(
                f"data.path={self.path} could not be loaded from {where}: {str(error).splitlines()[0]}"
            ) from error
        if isinstance(loaded, datasets.Dataset):
            loaded = {"train": loaded}
        aliases = {"train": ("train",), "validation": ("validation", "val", "dev"), "test": ("test",)}
        parts = {split: next((loaded[a] for a in each if a in loaded), None) for split, each in aliases.items()}
        if parts["train"] is None:
            raise UserError(f"data.path={self.path} has no train split; found {', '.join(loaded)}.")
        return {split: self._rows(part, f"{self.path}:{split}") for split, part in parts.items() if part is not None}

    def _rows(self, part: Any, origin: str) -> Rows:
        # The features are also in the schema, but only as long as nobody has changed the columns.
        arrow = part.data.table.replace_schema_metadata(part.features.arrow_schema.metadata)
        table = Table.of_arrow(arrow, origin)
        return table_rows(table, self.in_table(table), origin)
