"""A student of late interaction in an export: its graph makes token vectors, PyTorch's scores of pairs are the reference.

Which tokens count does not depend on the model, and for mask tokens of a query not on what the others see: so the graph gives a
vector for every token, and the manifest says what stands around a text and what counts (mangakd/runtime/late.py).
"""

import json
from collections.abc import Callable, Sequence
from dataclasses import asdict
from typing import Any

import numpy as np
import torch

from mangakd.data.apart import Framing, tokenise_apart
from mangakd.data.pairs import Template
from mangakd.models.late import Late
from mangakd.models.token_head import max_sim
from mangakd.runtime.late import OWNER, QUERY, SCORED, Frame
from mangakd.runtime.late import Late as Served

Arrays = dict[str, np.ndarray]


class Apart:
    """How a student reads pairs. inputs: of its graph."""

    def __init__(self, late: Late, tokenizer: Any, max_length: int, inputs: tuple[str, ...]) -> None:
        self._framing = Framing.of(late, tokenizer)  # reads the whole vocabulary: once, as answers are timed
        self._tokenizer, self._max_length, self._inputs = tokenizer, max_length, inputs

    def entry(self) -> dict[str, Any]:
        """The manifest's."""
        own = self._framing.augmentation
        query, document = map(_frame, (self._framing.query, self._framing.document))
        served = Served(query, document, own.length, own.mask_id, own.attend, own.skip)
        return json.loads(json.dumps(asdict(served)))  # type: ignore[no-any-return]

    def encode(self, pairs: Sequence[tuple[str, str]]) -> Arrays:
        """As training reads them (data/apart.py), with all inputs of the graph."""
        queries, documents = ([pair[side] for pair in pairs] for side in range(2))
        read = tokenise_apart(queries, documents, self._tokenizer, self._framing, self._max_length)
        arrays = read.inputs(np.arange(len(pairs)), self._tokenizer.pad_token_id)
        for start in ("", QUERY):
            types = np.zeros_like(arrays[f"{start}input_ids"])
            arrays |= {f"{start}{name}": arrays.get(f"{start}{name}", types) for name in self._inputs}
        return arrays

    def readings(self, arrays: Arrays) -> list[Arrays]:
        """The graph's own inputs: those of the queries, and those of the documents."""
        return [{name: arrays[f"{start}{name}"] for name in self._inputs} for start in (QUERY, "")]

    def scores(self, arrays: Arrays, vectors: Callable[[Arrays], torch.Tensor]) -> np.ndarray:
        """(S, 1). vectors: PyTorch's graph."""
        queries, documents = map(vectors, self.readings(arrays))
        owner = torch.from_numpy(arrays[OWNER][:, 0])
        of_query, of_document = (torch.from_numpy(arrays[f"{start}{SCORED}"]) for start in (QUERY, ""))
        return max_sim(queries[owner], documents, of_query[owner], of_document)[:, None].numpy()


def _frame(template: Template) -> Frame:
    pieces = template.pieces
    place = next(i for i, piece in enumerate(pieces) if piece.text is not None)
    before, after = (tuple(piece.token for piece in part) for part in (pieces[:place], pieces[place + 1 :]))
    return Frame(before, after, tuple(piece.type for piece in pieces))
