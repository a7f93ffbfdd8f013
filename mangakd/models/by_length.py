"""Divides a batch into runs of a model over sequences of similar length. On a CPU, padding costs as much as text.

A loader batches rows of similar length. A ranker's row owns the pairs of a query with all its documents, though, and their
lengths differ. A GPU computes a whole batch at once, so it gets one run. Answers of a sequence do not depend on padding, and
answers of the runs go back to the sequences' places; gradients are sums over the runs.
"""

from collections.abc import Callable, Mapping
from dataclasses import replace

import torch
from torch import Tensor

from mangakd.core.outputs import LENGTHS, Outputs
from mangakd.core.spec import Kind
from mangakd.runtime.grouping import groups

GAIN = 0.1  # the least share of a batch's tokens that makes several runs worth their while
MOST = 64  # sequences of a run; more make a run no faster, and the search for the best parts slower

Inputs = Mapping[str, Tensor]


def parts(inputs: Inputs) -> list[tuple[Tensor, int]]:
    """Positions of sequences, and the tokens to which they are padded, for each run; none where one run is as good.

    inputs: name → (S, T), padded on the right, and LENGTHS (S) where rows own several sequences.
    """
    lengths = inputs.get(LENGTHS)
    if lengths is None or lengths.device.type != "cpu":
        return []
    runs = [(torch.tensor(rows), int(lengths[rows].max())) for rows in groups(lengths.tolist(), MOST)]
    tokens = sum(len(rows) * longest for rows, longest in runs)
    return runs if tokens <= (1 - GAIN) * len(lengths) * int(lengths.max()) else []


def outputs(run: Callable[[Inputs], Outputs], inputs: Inputs, parts: list[tuple[Tensor, int]], kind: Kind) -> Outputs:
    """The outputs of all parts in the order of the batch; hidden states are 0 beyond a part. inputs: name → (S, T)."""
    each = [run({name: value[rows, :longest] for name, value in inputs.items()}) for rows, longest in parts]
    order = torch.cat([rows for rows, _ in parts]).argsort()
    mask = inputs["attention_mask"]
    hidden = {
        layer: torch.cat([_padded(part.hidden[layer], mask.shape[1]) for part in each])[order]
        for layer in each[0].hidden
    }
    return replace(Outputs.of(kind, torch.cat([part.answer for part in each])[order], mask), hidden=hidden)


def _padded(states: Tensor, longest: int) -> Tensor:
    """(S, T, D) with T = longest."""
    return torch.nn.functional.pad(states, (0, 0, 0, longest - states.shape[1]))
