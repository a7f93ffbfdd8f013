"""BM25 beside the models: what a search for words makes of the same documents."""

import importlib.util
import logging
from itertools import chain

import numpy as np
import torch
from torch import Tensor

from mangakd.data.bm25 import Bm25
from mangakd.data.rows import Rows

log = logging.getLogger(__name__)


def scores(rows: Rows) -> dict[str, Tensor]:
    """As `Task.ask` gives them: logits (N, G). Rare words are those that are rare in the documents of these rows."""
    numbers = {text: number for number, text in enumerate(dict.fromkeys(chain.from_iterable(rows["documents"])))}
    index = Bm25([*numbers])
    table = np.full((len(rows), max(map(len, rows["documents"]))), -np.inf, dtype=np.float32)
    for i, (query, documents) in enumerate(zip(rows["query"], rows["documents"], strict=True)):
        table[i, : len(documents)] = index.scores(query)[[numbers[text] for text in documents]]
    return {"logits": torch.from_numpy(table)}


def installed() -> bool:
    if importlib.util.find_spec("bm25s") is None:
        log.info("the tables have no row for BM25: pip install 'mangakd[ranking]' adds it.")
        return False
    return True
