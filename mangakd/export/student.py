"""Reads a student's folder as what it is: a model that answers (export/graph.py), or an encoder–decoder (export/seq2seq.py)."""

from pathlib import Path

from mangakd.core.errors import UserError
from mangakd.export import graph, seq2seq
from mangakd.export.checks import KEY, writes
from mangakd.export.graph import Graph
from mangakd.export.seq2seq import AS_THE_FOLDER_SAYS, Writing
from mangakd.models import load
from mangakd.models.pooling import Pooling


def read(
    folder: Path,
    max_length: int | None = None,
    pooling: Pooling | None = None,
    pairs: bool | None = None,
    writing: Writing = AS_THE_FOLDER_SAYS,
) -> Graph:
    """max_length, pooling, pairs: as in graph.read. writing: as in seq2seq.read.

    Raises UserError as both do, and for options of another kind of student.
    """
    if not writes(load.load_config(str(folder), KEY)):
        return graph.read(folder, max_length, pooling, pairs)
    if pooling is not None or pairs:
        raise UserError(f"{KEY}={folder} writes texts; pooling and pairs=true are of other students. Leave them out.")
    return seq2seq.read(folder, max_length, writing)
