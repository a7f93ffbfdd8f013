"""Which texts to compute together, so that little is spent on padding.

A model computes each text of a batch at the length of the longest, so texts of equal lengths are cheapest together. Each run of
the model has a price of its own. RUN is that price in tokens: of the values 4, 8, 16, 32 and 64, none is better for INT8 students
in both onnxruntime and openvino on one thread. Batches of 32 CLINC150 questions then take 0.69 (onnxruntime) and 0.86 (openvino)
of their time without groups.
"""

from collections.abc import Sequence

RUN = 32  # tokens


def groups(lengths: Sequence[int], most: int) -> list[list[int]]:
    """Positions in `lengths` (N tokens), in groups of up to `most`; each position is in one group.

    The groups minimise Σ (RUN + texts · longest) among those that take the texts in the order of their lengths, by dynamic
    programming in O(N · most).
    """
    order = sorted(range(len(lengths)), key=lengths.__getitem__)
    # Of the n shortest texts: costs[n], and starts[n - 1], where their last group starts.
    costs, starts = [0], list[int]()
    for end in range(1, len(order) + 1):
        longest = lengths[order[end - 1]]
        cost, start = min((costs[i] + (end - i) * longest, i) for i in range(max(0, end - most), end))
        costs.append(cost + RUN)
        starts.append(start)
    result, end = list[list[int]](), len(order)
    while end:
        result.append(order[starts[end - 1] : end])
        end = starts[end - 1]
    return result
