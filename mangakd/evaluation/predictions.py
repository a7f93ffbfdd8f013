"""The predictions that a run saves. Report, gate and comparisons then need neither models nor data.

There is one .npz a split. The file holds the logits of each model, the targets and the texts. Texts and labels are stored as
JSON in bytes: NumPy pads every string to the longest string, and NumPy pickles objects, which can run code when read.
"""

import json
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from mangakd.core.errors import UserError

FOLDER = "predictions"
MODELS = ("teacher", "student", "baseline")


@dataclass(frozen=True)
class Predictions:
    """One split. logits: (N, C) for `teacher` and `student`, and for `baseline` if the run trained a baseline.

    targets: (N) class ids, or (N, C) 0 and 1 for multi-label tasks. train_counts: (C) training rows of each class; `rare`
    needs the counts.
    """

    labels: tuple[str, ...]
    texts: list[str]
    targets: np.ndarray
    train_counts: np.ndarray
    logits: Mapping[str, np.ndarray]

    def __post_init__(self) -> None:
        rows, classes = len(self.texts), len(self.labels)
        table = (rows, classes)
        _check("targets", self.targets, (rows,) if self.targets.ndim == 1 else table)
        _check("train_counts", self.train_counts, (classes,))
        for name, logits in self.logits.items():
            _check(f"logits of the {name}", logits, table)

    @property
    def multi_label(self) -> bool:
        return self.targets.ndim == 2

    @property
    def models(self) -> list[str]:
        return [name for name in MODELS if name in self.logits]

    @property
    def rare(self) -> np.ndarray:
        """(C) bool: classes with less than half of an equal share of the training rows."""
        return self.train_counts < 0.5 * self.train_counts.mean()

    def same_rows(self, other: "Predictions") -> bool:
        """Whether both hold the same rows. Differences between them are then paired."""
        same = self.labels == other.labels and self.texts == other.texts
        return same and np.array_equal(self.targets, other.targets)


def file_of(run: Path, split: str) -> Path:
    return run / FOLDER / f"{split}.npz"


def save(predictions: Predictions, run: Path, split: str) -> None:
    """Write a scratch file and rename it. So a file with the final name is never partial."""
    file = file_of(run, split)
    file.parent.mkdir(parents=True, exist_ok=True)
    arrays = {f"logits/{name}": np.asarray(logits, dtype=np.float32) for name, logits in predictions.logits.items()}
    arrays |= {"targets": np.asarray(predictions.targets), "train_counts": np.asarray(predictions.train_counts)}
    arrays |= {"texts": _pack(predictions.texts), "labels": _pack(list(predictions.labels))}
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
        texts, labels = (json.loads(arrays[name].tobytes()) for name in ("texts", "labels"))
        logits = {name.removeprefix("logits/"): a for name, a in arrays.items() if name.startswith("logits/")}
        return Predictions(tuple(labels), texts, arrays["targets"], arrays["train_counts"], logits)
    except (OSError, EOFError, ValueError, KeyError, zipfile.BadZipFile) as error:
        reason = f"it lacks {error}" if isinstance(error, KeyError) else (str(error) or type(error).__name__)
        raise UserError(f"{file} cannot be read: {reason.rstrip('.')}. Delete it and train again.") from error


def _check(name: str, values: np.ndarray, shape: tuple[int, ...]) -> None:
    if values.shape != shape:
        raise ValueError(f"{name} have shape {values.shape}, not {shape}")


def _pack(value: list[str]) -> np.ndarray:
    return np.frombuffer(json.dumps(value).encode(), dtype=np.uint8)
