"""The memory of a search index: N vectors of D numbers, each of them in fp32, fp16 or int8."""

from collections.abc import Sequence

from mangakd.planning.job import GB

BYTES = {"fp32": 4, "fp16": 2, "int8": 1}
VECTORS = 1_000_000


def size(vectors: int, dims: int, dtype: str) -> int:
    """Bytes of the numbers alone: N · D · bytes. A graph over the vectors, such as HNSW's, comes on top."""
    return vectors * dims * BYTES[dtype]


def lines(width: int, dims: Sequence[int]) -> list[str]:
    """Of a million vectors, whole (`width`) and cut to each of `dims`."""
    rows = [
        f"  {f'{cut} dimensions':<24}"
        + "  ".join(f"{dtype} {size(VECTORS, cut, dtype) / GB:.2f} GB" for dtype in BYTES)
        for cut in dict.fromkeys([width, *sorted(dims, reverse=True)])
    ]
    return [f"a search index of {VECTORS:,} vectors, without the structures of a search", *rows]
