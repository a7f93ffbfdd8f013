"""The memory of a search index: N vectors of D numbers, each of them in fp32, fp16 or int8. Late interaction has one a token."""

from collections.abc import Sequence

from mangakd.planning.job import GB

BYTES = {"fp32": 4, "fp16": 2, "int8": 1}
VECTORS = 1_000_000


def size(vectors: int, dims: int, dtype: str) -> int:
    """Bytes of the numbers alone: N · D · bytes. A graph over the vectors, such as HNSW's, comes on top."""
    return vectors * dims * BYTES[dtype]


def lines(width: int, dims: Sequence[int] = (), tokens: int = 0) -> list[str]:
    """Of a million vectors, whole (`width`) and cut to each of `dims`; or of a million documents of so many tokens."""
    rows = [
        f"  {f'{cut} dimensions':<24}"
        + "  ".join(f"{dtype} {size(VECTORS * max(tokens, 1), cut, dtype) / GB:.2f} GB" for dtype in BYTES)
        for cut in dict.fromkeys([width, *sorted(dims, reverse=True)])
    ]
    what = f"documents of {tokens} tokens, a vector each" if tokens else "vectors"
    return [f"a search index of {VECTORS:,} {what}, without the structures of a search", *rows]
