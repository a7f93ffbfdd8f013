"""`writes=embeddings`: the vector of each text, in a file that `teacher=vectors` reads.

The texts are those that the teacher of `task=embedding` reads of the rows (text, anchor, positive, negatives) with its prompts.
Vectors are kept by the part in `<out>.parts` until all are there, so that a killed command pays for one part at most again.
"""

import hashlib
import json
import os
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pyarrow as pa
import pyarrow.parquet

from mangakd.core.errors import UserError
from mangakd.core.locks import waiting_lock
from mangakd.data.rows import Columns, Rows
from mangakd.data.token_files import Progress
from mangakd.labelling.label_manifest import file_entry, now, versions, write_manifest
from mangakd.labelling.provider import Embedder
from mangakd.tasks.embedding.task import Embedding

ENDINGS = (".parquet", ".npy")
PART = 1024  # texts
PACKAGES = ("torch", "transformers", "openai")  # that a vector may depend on


@dataclass(frozen=True)
class Embeddings:
    """prompts: query, document → what stands before each text, as in task.prompts.teacher; anchors and texts are queries."""

    columns: ClassVar[Columns] = {"text": "text", "anchor": "text", "positive": "text", "negatives": "texts"}
    needs: ClassVar[tuple[str, ...]] = ("anchor", "text")
    prompts: Mapping[str, str] = field(default_factory=dict)

    def texts(self, rows: Rows) -> list[str]:
        """Each different text once. Raises UserError for a row without one."""
        for i, (text, anchor) in enumerate(zip(rows["text"], rows["anchor"], strict=True)):
            if not (text.strip() or anchor.strip()):
                raise UserError(f"{rows.where(i)} has no text. Fill or remove it, or set data.columns.text.")
        sequences = Embedding(prompts={"teacher": self.prompts}).sequences(rows)
        return [*dict.fromkeys(text for row in sequences for (text,) in row if text.strip())]


def check_out(out: Path) -> None:
    """Raises UserError for a file that cannot hold vectors."""
    if out.suffix.lower() not in ENDINGS:
        raise UserError(f"out={out} must end with {' or '.join(ENDINGS)}: vectors are written as numbers.")


def embed(
    rows: Rows,
    embedder: Embedder,
    form: Embeddings,
    out: Path,
    cache: Path,
    progress: Progress,
    data: Path | None = None,
) -> None:
    """Write the vectors of all texts, and the manifest. data: the file of the rows.

    A .parquet has the columns text and vector; a .npy has its texts in a .jsonl beside it.
    """
    check_out(out)
    source, texts, identity = file_entry(data, out, len(rows)), form.texts(rows), dict(embedder.identity)
    folder = out.with_name(out.name + ".parts")
    with waiting_lock(cache / "locks" / f"label-{_hash(str(out.resolve()))}", f"writing {out}"):
        folder.mkdir(parents=True, exist_ok=True)
        with progress("embed", len(texts)) as advance:
            parts, size = [], len(texts) if embedder.remembers else PART
            for start in range(0, len(texts), size):
                some = texts[start : start + size]
                parts.append(_part(folder / f"{_hash([identity, some])}.npy", embedder, some))
                advance(len(some))
        table = np.concatenate(parts)
        _write(out, texts, table)
        settings = {"prompts": {name: text or "" for name, text in form.prompts.items()}}
        content = {
            "out": file_entry(out, out, len(texts)), "data": source, "form": {"name": "embeddings", **settings}, "template": None,
            "teacher": identity, "sampling": {}, "seed": None, "samples": 1, "cut": None, "ledger": embedder.ledger_entry,
            "versions": versions(PACKAGES), "date": now(),
        }  # fmt: skip
        write_manifest(out, content)
        shutil.rmtree(folder)
    print(f"{len(texts)} vectors of {table.shape[1]} dimensions: {out}")


def _part(file: Path, embedder: Embedder, texts: Sequence[str]) -> np.ndarray:
    """From the file of a killed command, or anew. Raises UserError for vectors that do not belong to the texts."""
    if file.is_file():
        part: np.ndarray = np.load(file)
        return part
    vectors = np.asarray(embedder.vectors(texts), np.float32)
    if vectors.ndim != 2 or len(vectors) != len(texts) or not np.isfinite(vectors).all():
        raise UserError(
            f"the provider answered {len(texts)} texts with an array {[*vectors.shape]}, or with what is no number. Each text "
            "needs one vector of finite numbers."
        )
    partial = file.with_suffix(".partial")
    with partial.open("wb") as stream:
        np.save(stream, vectors)
        stream.flush()
        os.fsync(stream.fileno())
    partial.replace(file)
    return vectors


def _write(out: Path, texts: Sequence[str], table: np.ndarray) -> None:
    partial = out.with_name(out.name + ".partial")
    if out.suffix.lower() == ".npy":
        lines = out.with_suffix(".jsonl")
        lines.write_text(
            "".join(json.dumps({"text": text}, ensure_ascii=False) + "\n" for text in texts), encoding="utf-8"
        )
        with partial.open("wb") as stream:
            np.save(stream, table)
    else:
        vectors = pa.FixedSizeListArray.from_arrays(pa.array(table.ravel()), table.shape[1])
        pyarrow.parquet.write_table(pa.table({"text": pa.array(texts, pa.string()), "vector": vectors}), partial)
    partial.replace(out)


def _hash(value: Any) -> str:
    return hashlib.sha256(json.dumps(value, default=str).encode()).hexdigest()[:16]
