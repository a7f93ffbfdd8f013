"""The predictions that a run saves. Report, gate and comparisons then need neither models nor data.

There is one .npz a split. The file holds each model's answers, the truth and the texts. Texts and the head are stored as JSON in
bytes: NumPy pads every string to the longest string, and NumPy pickles objects, which can run code when read.
"""

import json
import zipfile
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from itertools import chain, islice
from pathlib import Path
from typing import Any

import numpy as np

from mangakd.core.errors import UserError
from mangakd.core.spec import Head
from mangakd.evaluation.judge import Arrays

FOLDER = "predictions"
MODELS = ("teacher", "student", "baseline")


@dataclass(frozen=True)
class Predictions:
    """One split of N rows. head: of the models. texts: one a row, for the report.

    truth: column → (N, …). answers: `teacher`, `student`, `baseline` if the run trained a baseline, and the name of each
    reference (`Task.references`) → the result of `Task.ask`, each array (N, …). facts: further input of the judge, such as the
    training rows of each class (`Task.facts`). lists: column → the N lists of texts of rows that own several (`Task.lists`).
    written: model → the N lists of texts that it wrote for the rows; an empty list where it wrote none.
    """

    head: Head
    texts: list[str]
    truth: Arrays
    answers: Mapping[str, Arrays]
    facts: Arrays = field(default_factory=dict)
    lists: Mapping[str, list[list[str]]] = field(default_factory=dict)
    written: Mapping[str, list[list[str]]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for name, arrays in {"truth": self.truth, **self.answers}.items():
            for key, values in arrays.items():
                if len(values) != len(self.texts):
                    raise ValueError(f"{key} of {name} has {len(values)} rows, not {len(self.texts)}")

    @property
    def models(self) -> list[str]:
        """The run's models, and then the references."""
        return sorted(self.answers, key=lambda name: MODELS.index(name) if name in MODELS else len(MODELS))

    def same_rows(self, other: "Predictions") -> bool:
        """Whether both hold the same rows. Differences between them are then paired."""
        same = (self.head, self.texts, self.lists) == (other.head, other.texts, other.lists)
        same = same and self.truth.keys() == other.truth.keys()
        return same and all(_equal(values, other.truth[name]) for name, values in self.truth.items())


def _equal(one: np.ndarray, other: np.ndarray) -> bool:
    """NaN, which marks what is not there, equals itself."""
    return np.array_equal(one, other, equal_nan=np.issubdtype(one.dtype, np.inexact))


def file_of(run: Path, split: str) -> Path:
    return run / FOLDER / f"{split}.npz"


def save(predictions: Predictions, run: Path, split: str) -> None:
    """Write a scratch file and rename it, so that a file with the final name is never partial. Answers become float32."""
    file = file_of(run, split)
    file.parent.mkdir(parents=True, exist_ok=True)
    arrays = {
        f"answers/{model}/{name}": np.asarray(values, dtype=np.float32)
        for model, answers in predictions.answers.items()
        for name, values in answers.items()
    }
    for group in ("truth", "facts"):
        arrays |= {f"{group}/{name}": np.asarray(values) for name, values in getattr(predictions, group).items()}
    arrays |= {"texts": _pack(predictions.texts), "head": _pack(asdict(predictions.head))}
    for group, columns in (("lists", predictions.lists), ("written", predictions.written)):
        for name, lists in columns.items():
            arrays |= {f"{group}/{name}/{part}": values for part, values in _pack_lists(lists).items()}
    scratch = file.with_name(f"{split}.partial.npz")
    np.savez_compressed(scratch, allow_pickle=False, **arrays)  # type: ignore[arg-type]
    scratch.replace(file)


def load(run: Path, split: str) -> Predictions:
    """Raises UserError if the run has no predictions, or if the file is damaged."""
    file = file_of(run, split)
    if not file.is_file():
        raise UserError(
            f"{run} has no {FOLDER}/{split}.npz: the run has not finished, or was made by a version that saved no predictions. "
            f"Finish it (its command with hydra.run.dir={run} resume=auto), or train again."
        )
    try:
        with np.load(file, allow_pickle=False) as archive:
            arrays = {name: archive[name] for name in archive.files}
        texts, head = (json.loads(arrays[name].tobytes()) for name in ("texts", "head"))
        lists, written = (_columns(_group(arrays, group)) for group in ("lists", "written"))
        answers: dict[str, dict[str, np.ndarray]] = {}
        for name, values in _group(arrays, "answers").items():
            model, _, key = name.rpartition("/")
            answers.setdefault(model, {})[key] = values
        return Predictions(
            Head.read(head), texts, _group(arrays, "truth"), answers, _group(arrays, "facts"), lists, written
        )
    except (OSError, EOFError, ValueError, KeyError, TypeError, zipfile.BadZipFile) as error:
        reason = f"it lacks {error}" if isinstance(error, KeyError) else (str(error) or type(error).__name__)
        raise UserError(f"{file} cannot be read: {reason.rstrip('.')}. Delete it and train again.") from error


def _group(arrays: Mapping[str, np.ndarray], group: str) -> dict[str, np.ndarray]:
    prefix = f"{group}/"
    return {name.removeprefix(prefix): values for name, values in arrays.items() if name.startswith(prefix)}


def _pack(value: Any) -> np.ndarray:
    return np.frombuffer(json.dumps(value).encode(), dtype=np.uint8)


def _pack_lists(lists: list[list[str]]) -> dict[str, np.ndarray]:
    """Each different text once: a document belongs to many queries."""
    places = {text: place for place, text in enumerate(dict.fromkeys(chain.from_iterable(lists)))}
    return {
        "texts": _pack([*places]),
        "places": np.array([places[text] for text in chain.from_iterable(lists)], dtype=np.int32),
        "sizes": np.array([len(each) for each in lists], dtype=np.int32),
    }


def _columns(arrays: Mapping[str, np.ndarray]) -> dict[str, list[list[str]]]:
    names = dict.fromkeys(name.rpartition("/")[0] for name in arrays)
    return {name: _lists(_group(arrays, name)) for name in names}


def _lists(packed: Mapping[str, np.ndarray]) -> list[list[str]]:
    texts, places = json.loads(packed["texts"].tobytes()), iter(packed["places"].tolist())
    return [[texts[place] for place in islice(places, size)] for size in packed["sizes"].tolist()]
