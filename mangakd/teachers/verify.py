"""Compares a store with the live teacher that should have filled it."""

from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from mangakd.core.numbers import largest
from mangakd.core.outputs import Batch
from mangakd.core.requires import Need
from mangakd.core.spec import Head
from mangakd.core.token_logits import FromStates
from mangakd.data.gather import autocast, to_device
from mangakd.data.loader import EvalBatches
from mangakd.store.manifest import Manifest
from mangakd.store.reader import StoreReader
from mangakd.teachers.base import TeacherProvider
from mangakd.teachers.fill import Fill
from mangakd.teachers.lm_head_file import read_head
from mangakd.teachers.options import TeacherContext
from mangakd.teachers.token_kinds import answer_of, difference


def verify(
    folder: Path, manifest: Manifest, teacher: TeacherProvider, name: str, context: TeacherContext, rows: int = 256
) -> float:
    """Hash the shards again and ask the live teacher about some rows of a split: max |Δ log p| between store and teacher.

    For a head of scores it is max |Δ score|, for a head of tokens max |Δp| or the share of different draws.
    """
    split = context.splits[name]
    reader = StoreReader(folder, manifest)
    positions = np.linspace(0, len(split.teacher) - 1, min(rows, len(split.teacher)), dtype=np.int64)
    if manifest.of_tokens:
        batches = EvalBatches(split.sequences, context.batch_size, positions)
        return largest(_of_tokens(reader, teacher, batch, context) for batch in batches)
    live = manifest.codec.decode(Fill(manifest, teacher, context).records(name, positions))
    stored = reader.lookup(split.teacher.keys[positions])
    return _gap(torch.from_numpy(live["logits"]), torch.from_numpy(stored["logits"]), teacher.spec.head)


def _gap(live: Tensor, stored: Tensor, head: Head) -> float:
    if head.several:  # one Bernoulli per label: log p of on and of off
        live, stored = (torch.nn.functional.logsigmoid(torch.stack([z, -z])) for z in (live, stored))
    elif head.kind == "labels":
        live, stored = live.log_softmax(-1), stored.log_softmax(-1)
    return float((live - stored).abs().max())


def _of_tokens(reader: StoreReader, teacher: TeacherProvider, batch: Batch, context: TeacherContext) -> float:
    batch = to_device(batch, context.device)
    head = read_head(reader.folder, context.device) if reader.manifest.kind == "states" else None
    stored = answer_of(reader.lookup(batch["key"].cpu().numpy()), reader.manifest, head, context.device)
    with torch.no_grad(), autocast(context.device, context.precision):
        live = teacher.prepare(context.device, Need(answer=True))(batch).tokens
        assert isinstance(live, FromStates)
        return difference(live, stored, batch)
