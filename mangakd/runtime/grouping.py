"""Groups texts of similar length, so that a batch has little padding.

A model computes each text of a batch at the length of the longest text, so texts of equal length are cheapest together. Each run
of the model has a fixed cost. RUN is that cost in tokens: of 4, 8, 16, 32 and 64 no value is better for INT8 students in both
onnxruntime and openvino on one thread. Batches of 32 CLINC150 questions then take 0.69 (onnxruntime) and 0.86 (openvino) of
their time without groups.
"""

from collections.abc import Sequence

RUN = 32  # tokens


def groups(lengths: Sequence[int], most: int) -> list[list[int]]:
    """Divide the positions of `lengths` (N tokens) into groups of up to `most`.

    The groups minimise Σ (RUN + texts · longest) among groups of texts sorted by length, by dynamic programming in O(N · most).
    """
    order = sorted(range(len(lengths)), key=lengths.__getitem__)
    # For the n shortest texts: costs[n] is the smallest cost, starts[n - 1] the start of their last group.
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
