"""An exported student: texts in, answers or texts out; or a query with documents in, their ranking out.

Texts are batched by length, so that short texts are not padded to the longest. The answers keep the order of the texts.
"""

import logging
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from mangakd.core.errors import UserError
from mangakd.runtime import hugging_face
from mangakd.runtime.answers import Answer, answers, ranking, shortened
from mangakd.runtime.backends import Run, open_model
from mangakd.runtime.grouping import groups
from mangakd.runtime.late_model import once, reader_of
from mangakd.runtime.manifest import Manifest, read
from mangakd.runtime.tokenise import Text, Tokeniser
from mangakd.runtime.writer import Writer

log = logging.getLogger(__name__)
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
    model = Model(manifest, reader_of(manifest), open_model(manifest, threads))
    model.check()
    return model


class Model:
    """A loaded student. Several threads may call it at a time."""

    def __init__(self, manifest: Manifest, tokeniser: Tokeniser, run: Run):
        self.manifest, self._tokeniser, self._run = manifest, tokeniser, run
        self._width = 0  # columns of an answer; check() sets it
        self._warned: set[int] = set()

    @property
    def labels(self) -> tuple[str, ...]:
        return self.manifest.head.names

    def predict(self, texts: Sequence[str], batch_size: int = BATCH, top: int | None = None) -> list[Answer]:
        """One dict a text (mangakd.runtime.answers). top: number of probabilities in each; None: all.

        Raises UserError if texts is no list of str, and for a student that gives embeddings or ranks documents.
        """
        if self.use != "predict(texts)":
            raise UserError(f"{self.manifest.folder} answers with {self.gives}: use {self.use}.")
        _check_texts(texts)
        if top is not None and (not _is_int(top) or top < 1):
            raise UserError(f"top={top!r}: give how many probabilities to show, from 1 on, or None for all.")
        return self.answers(self.outputs(texts, batch_size), top)

    def rank(self, query: str, documents: Sequence[str], batch_size: int = BATCH) -> list[Answer]:
        """[{"index": i, "score": s}] of all documents, best first; of equal scores the first document first.

        index: into `documents`. score: the model's own number, without an activation. A long document is cut, the query never.
        Raises UserError for a query that leaves no room for a document, and for a student that does not rank.
        """
        if self.use != "rank(query, documents)":
            raise UserError(f"{self.manifest.folder} answers with {self.gives}: use {self.use}.")
        if not isinstance(query, str):
            raise UserError(f"query is a {type(query).__name__}; give a str.")
        _check_texts(documents, "documents")
        self.check_query(query)
        return ranking(self.outputs([(query, document) for document in documents], batch_size))

    def embed(
        self, texts: Sequence[str], batch_size: int = BATCH, dims: int | None = None, prompt: str | None = None
    ) -> np.ndarray:
        """(N, D) float32, one row a text.

        dims: the first dims of each row, normalised; None: all, as the model gives them. A size that the student has not learned
        (manifest.dims) is warned about once. prompt: the name of what stands before
        each text; None: the model's default. Raises UserError for a student that gives no embeddings, for more dims than it has,
        and for a prompt that it does not have.
        """
        if self.use != "embed(texts)":
            raise UserError(f"{self.manifest.folder} answers with {self.gives}: use {self.use}.")
        _check_texts(texts)
        self.check_dims(dims)
        return shortened(self.outputs(self.prompted(texts, prompt), batch_size), dims)

    def rewrite(self, texts: Sequence[str | Sequence[str]], batch_size: int = BATCH) -> list[str]:
        """What the student writes for each text: the most probable token at each step, up to its end or max_new_tokens of the
        manifest.

        texts: each a str, or the turns of a conversation, the oldest first, joined as in training; turns that do not fit are left
        out, and never the last one. Raises UserError for what is none of them, for turns where the manifest does not say how they
        are joined, and for a student that writes nothing.
        """
        if self.use != "rewrite(texts)":
            raise UserError(f"{self.manifest.folder} answers with {self.gives}: use {self.use}.")
        if not isinstance(texts, list | tuple):
            _check_texts(texts)
        asked: list[Text] = []
        for i, text in enumerate(texts):
            if isinstance(text, list | tuple):
                self.check_turns()
                _check_texts(text, f"texts[{i}]")
            else:
                _check_texts([text])
            asked.append(text if isinstance(text, str) else tuple(text))
        return self.texts(self.outputs(asked, batch_size))

    def check_turns(self) -> None:
        """Raises UserError for a student that does not read turns of conversations."""
        if self.manifest.turns is None:
            raise UserError(
                f"{self.manifest.folder} reads texts, and its manifest does not say how turns are joined. Join them as in "
                "training."
            )

    @property
    def use(self) -> str:
        """The method that asks this student."""
        if self.manifest.pairs:
            return "rank(query, documents)"
        return {"vector": "embed(texts)", "tokens": "rewrite(texts)"}.get(self.manifest.head.kind, "predict(texts)")

    @property
    def gives(self) -> str:
        """For messages: `3 labels (order, …)`, `384 dimensions`, `the score of a query with a document`, `a text`."""
        if self.manifest.pairs:
            return "the score of a query with a document"
        return str(self.manifest.head) if self.manifest.decoding is None else "a text"

    def check_query(self, query: str) -> None:
        self._tokeniser.check_query(query)

    @property
    def width(self) -> int:
        """Columns of an answer."""
        return self._width

    def check_dims(self, dims: Any) -> None:
        if dims is not None and (not _is_int(dims) or not 1 <= dims <= self._width):
            raise UserError(f"dims={dims!r}: this student has {self._width} dimensions; give a number from 1 to that.")
        learned = self.manifest.dims
        if dims is not None and learned and dims not in {*learned, self._width, *self._warned}:
            self._warned.add(dims)
            log.warning(
                "dims=%d: this student has learned to be cut to %s dimensions.", dims, ", ".join(map(str, learned))
            )

    def prompted(self, texts: Sequence[str], prompt: str | None) -> list[str]:
        """The texts with the prompt of this name, or the default one, before each. Raises UserError for an unknown name."""
        prompts, name = self.manifest.prompts, self.manifest.default_prompt if prompt is None else prompt
        if name is not None and name not in prompts:
            raise UserError(f"prompt={name!r}: this student's prompts are {', '.join(prompts) or 'none'}.")
        start = "" if name is None else prompts[name]
        return [start + text for text in texts]

    def lengths(self, texts: Sequence[Text]) -> tuple[list[int], bool]:
        """The number of tokens of each text as it is read, and whether one of them was cut."""
        encodings = self._tokeniser(texts)
        return [len(encoding) for encoding in encodings], any(encoding.overflowing for encoding in encodings)

    def answers(self, rows: np.ndarray, top: int | None = None) -> list[Answer]:
        """Rows of `outputs` as dicts."""
        return answers(rows, self.manifest.head, top)

    def texts(self, rows: np.ndarray) -> list[str]:
        """Rows of `outputs` of a student that writes."""
        return self._tokeniser.texts(rows)

    def outputs(self, texts: Sequence[Text], batch_size: int = BATCH) -> np.ndarray:
        """The model's raw outputs: logits (N, C) or embeddings (N, D), float32; or token ids (N, max_new_tokens), int64, -1
        after the end of a text. texts: pairs for a student that ranks.

        A row depends on its text only. If the model's rows depend on each other, each text is a batch, whatever batch_size is.
        """
        if not _is_int(batch_size) or batch_size < 1:
            raise UserError(f"batch_size={batch_size!r}: give how many texts to compute at a time, from 1 on.")
        size = batch_size if self.manifest.rows_independent else 1
        encodings, run = self._tokeniser(texts), once(self._run)
        rows = np.empty((len(texts), self._width), dtype=np.float32 if self.manifest.decoding is None else np.int64)
        for some in groups([len(encoding) for encoding in encodings], size):
            rows[some] = run(self._tokeniser.pad([encodings[i] for i in some], self.manifest.inputs))
        return rows

    def logits(self, texts: Sequence[Text], ids: np.ndarray) -> np.ndarray:
        """(N, T, V) of a student that writes: the logits of each of the token ids (N, T) after those before it."""
        assert isinstance(self._run, Writer)
        return self._run.logits(self._tokeniser.pad(self._tokeniser(texts), self.manifest.inputs), ids)

    def check(self) -> None:
        """Compute one text. Raises UserError if the answer does not have the shape (1, C) of the head, or is not finite.

        Of a student that writes the logits of the first token are computed.
        """
        text: Text = ("hello", "hello") if self.manifest.pairs else "hello"
        arrays = self._tokeniser.pad(self._tokeniser([text]), self.manifest.inputs)
        run = self._run.first_logits if isinstance(self._run, Writer) else self._run
        row = np.asarray(run(arrays))
        head = self.manifest.head
        columns = row.shape[-1] if head.kind == "vector" and not head.outputs else head.outputs  # format 1 has no width
        if row.shape != (1, columns) or not np.isfinite(row).all():
            raise UserError(
                f"{self.manifest.model} answers a text with {row.dtype}{list(row.shape)}"
                f"{'' if np.isfinite(row).all() else ' that is not finite'}; its manifest promises "
                f"{self.manifest.output} [1, {columns}]. Export the student again."
            )
        self._width = row.size if self.manifest.decoding is None else self.manifest.decoding.max_new_tokens


def _check_texts(texts: Any, name: str = "texts") -> None:
    if isinstance(texts, str):
        raise UserError(f'{name} is one str; give a list of them: ["…"].')
    if not isinstance(texts, list | tuple):
        raise UserError(f"{name} is a {type(texts).__name__}; give a list of str.")
    for i, text in enumerate(texts):
        if not isinstance(text, str):
            raise UserError(f"{name}[{i}] is a {type(text).__name__}; give a list of str.")


def _is_int(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)
