"""An exported student: texts in, answers out.

Texts are batched by length, so that short texts are not padded to the longest. The answers keep the order of the texts.
"""

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from mangakd.core.errors import UserError
from mangakd.runtime import hugging_face
from mangakd.runtime.answers import Answer, answers
from mangakd.runtime.backends import Run, open_model
from mangakd.runtime.grouping import groups
from mangakd.runtime.manifest import Manifest, read
from mangakd.runtime.tokenise import Tokeniser

BATCH = 32  # on a CPU larger batches are no faster, and have more padding


def load(folder: str | Path, threads: int | None = None) -> "Model":
    """Load the student in `folder`, verify its files and compute one text, so that the first request is not slower.

    folder: exported by mangakd, or by optimum-intel (mangakd.runtime.hugging_face), whose files cannot be verified. threads: for
    one batch; None takes all cores. Raises UserError if the folder holds no student, is damaged, or needs a missing package.
    """
    if threads is not None and (not _is_int(threads) or threads < 1):
        raise UserError(f"threads={threads!r}: give a number of threads from 1 on, or None for all cores.")
    if threads is not None:  # the tokenizer creates its threads once a process
        os.environ.setdefault("RAYON_NUM_THREADS", str(threads))
    if threads == 1:  # tokenise in the caller's thread: waking a pool of one thread takes time for each text
        os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    folder = Path(folder).expanduser()
    manifest = hugging_face.manifest_of(folder) if hugging_face.is_export(folder) else read(folder)
    tokeniser = Tokeniser(
        manifest.tokenizer, manifest.max_length, manifest.pad_id, manifest.pad_type_id, manifest.truncation_side
    )
    model = Model(manifest, tokeniser, open_model(manifest, threads))
    model.check()
    return model


class Model:
    """A loaded student. Several threads may call it at a time."""

    def __init__(self, manifest: Manifest, tokeniser: Tokeniser, run: Run):
        self.manifest, self._tokeniser, self._run = manifest, tokeniser, run
        self._width = 0  # columns of an answer; check() sets it

    @property
    def labels(self) -> tuple[str, ...]:
        return self.manifest.head.names

    def predict(self, texts: Sequence[str], batch_size: int = BATCH, top: int | None = None) -> list[Answer]:
        """One dict a text (mangakd.runtime.answers). top: number of probabilities in each; None: all.

        Raises UserError if texts is no list of str, and for a student that gives embeddings.
        """
        if self.manifest.head.kind == "vector":
            raise UserError(f"{self.manifest.folder} is a student that gives embeddings: use embed(texts).")
        if top is not None and (not _is_int(top) or top < 1):
            raise UserError(f"top={top!r}: give how many probabilities to show, from 1 on, or None for all.")
        return self.answers(self.outputs(texts, batch_size), top)

    def embed(self, texts: Sequence[str], batch_size: int = BATCH) -> np.ndarray:
        """(N, D) float32, one row a text. Raises UserError for a student that gives labels or values."""
        if self.manifest.head.kind != "vector":
            raise UserError(f"{self.manifest.folder} answers with {self.manifest.head}: use predict(texts).")
        return self.outputs(texts, batch_size)

    def answers(self, rows: np.ndarray, top: int | None = None) -> list[Answer]:
        """Rows of `outputs` as dicts."""
        return answers(rows, self.manifest.head, top)

    def outputs(self, texts: Sequence[str], batch_size: int = BATCH) -> np.ndarray:
        """The model's raw outputs: logits (N, C) or embeddings (N, D), float32.

        A row depends on its text only. If the model's rows depend on each other, each text is a batch, whatever batch_size is.
        """
        _check_texts(texts)
        if not _is_int(batch_size) or batch_size < 1:
            raise UserError(f"batch_size={batch_size!r}: give how many texts to compute at a time, from 1 on.")
        size = batch_size if self.manifest.rows_independent else 1
        encodings = self._tokeniser(texts)
        rows = np.empty((len(texts), self._width), dtype=np.float32)
        for some in groups([len(encoding) for encoding in encodings], size):
            rows[some] = self._run(self._tokeniser.pad([encodings[i] for i in some], self.manifest.inputs))
        return rows

    def check(self) -> None:
        """Compute one text. Raises UserError if the answer does not have the shape (1, C) of the head, or is not finite."""
        row = np.asarray(self._run(self._tokeniser.pad(self._tokeniser(["hello"]), self.manifest.inputs)))
        head = self.manifest.head
        columns = row.shape[-1] if head.kind == "vector" and not head.outputs else head.outputs  # format 1 has no width
        if row.shape != (1, columns) or not np.isfinite(row).all():
            raise UserError(
                f"{self.manifest.model} answers a text with {row.dtype}{list(row.shape)}"
                f"{'' if np.isfinite(row).all() else ' that is not finite'}; its manifest promises "
                f"{self.manifest.output} [1, {columns}]. Export the student again."
            )
        self._width = row.size


def _check_texts(texts: Any) -> None:
    if isinstance(texts, str):
        raise UserError('texts is one str; give a list of them: predict(["…"]).')
    if not isinstance(texts, list | tuple):
        raise UserError(f"texts is a {type(texts).__name__}; give a list of str.")
    for i, text in enumerate(texts):
        if not isinstance(text, str):
            raise UserError(f"texts[{i}] is a {type(text).__name__}; give a list of str.")


def _is_int(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)
