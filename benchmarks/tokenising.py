"""How fast are texts tokenised, and in how much memory: in chunks, as mangakd does it, and all at once.

    python benchmarks/tokenising.py

*All at once* is written here: one call of the Hugging Face tokenizer for all texts, lists to one Arrow table, one JSON text
of everything as the file's name. Both sides use the tokenizers library's threads. The sides take turns, each time in a
process of its own that has loaded the tokenizer and the texts before it counts. Peak memory is that of resident memory, mapped
pages included, less what was in use before. Ids and keys of both sides must be equal, or the script stops.

Wanted: at least 1.7 times the rows a second, and at most 300 MB whatever the rows.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import pyarrow as pa
import tokenizers
import transformers
from memory import _peak, _reset
from results_file import table, write

from mangakd.data.tokenising import tokenise
from mangakd.data.tokens import Tokens
from mangakd.models.load import load_tokenizer, vocabulary_digest
from mangakd.models.location import EMBEDDED
from mangakd.shop.manga_corpus import make_split

UTTERANCES, MAX_LENGTH, MB = 5_000, 64, 1e6
RATIO, MEMORY = 1.7, 300 * MB


def at_once(texts: list[str], tokenizer: Any, max_length: int, folder: Path) -> Tokens:
    content = [vocabulary_digest(tokenizer), max_length, texts]
    file = folder / hashlib.sha256(json.dumps(content).encode()).hexdigest()
    rows = tokenizer(texts, truncation=True, max_length=max_length, return_attention_mask=False)["input_ids"]
    arrays = [np.asarray(row, dtype=np.int32) for row in rows]
    digests = [hashlib.blake2b(row.tobytes(), digest_size=8).digest() for row in arrays]
    keys = [int.from_bytes(digest, "little", signed=True) for digest in digests]
    offsets = np.cumsum([0, *map(len, arrays)], dtype=np.int32)
    column = pa.ListArray.from_arrays(pa.array(offsets), pa.array(np.concatenate(arrays)))
    arrow_table = pa.table({"input_ids": column, "key": pa.array(keys, pa.int64())})
    with pa.OSFile(str(file), "wb") as sink, pa.ipc.new_file(sink, arrow_table.schema) as writer:
        writer.write_table(arrow_table)
    read = pa.ipc.open_file(pa.memory_map(str(file))).read_all()
    column = read["input_ids"].combine_chunks()
    offsets = column.offsets.to_numpy().astype(np.int64)
    return Tokens(column.values.to_numpy(), offsets[:-1], np.diff(offsets), read["key"].to_numpy())


SIDES = {"all at once": at_once, "in chunks": tokenise}


def child(side: str, rows: int) -> dict[str, Any]:
    """Seconds, CPU seconds and bytes of tokenising `rows` texts; runs in a process that did nothing before."""
    utterances, _ = make_split("unlabelled", UTTERANCES)
    texts = [f"{utterances[row % UTTERANCES]} ({row})" for row in range(rows)]
    tokenizer, make = load_tokenizer(EMBEDDED), SIDES[side]
    with tempfile.TemporaryDirectory() as folder:
        make(texts[:100], tokenizer, MAX_LENGTH, Path(folder))  # imports, and buffers of the libraries
        before, wall, cpu = _reset("cpu"), time.perf_counter(), time.process_time()
        tokens = make(texts, tokenizer, MAX_LENGTH, Path(folder))
        seconds = {"seconds": time.perf_counter() - wall, "cpu_seconds": time.process_time() - cpu}
        peak = _peak("cpu") - before
        content = hashlib.sha256(tokens.keys.tobytes())
        for row in range(rows):
            content.update(tokens[row].tobytes())
    return {"side": side, "rows": rows, **seconds, "peak": peak, "content": content.hexdigest()}


def measure(side: str, rows: int) -> dict[str, Any]:
    command = [sys.executable, __file__, "--child", side, str(rows)]
    threads = {"TOKENIZERS_PARALLELISM": "true", "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"}
    process = subprocess.run(command, env={**os.environ, **threads}, capture_output=True, text=True)
    if process.returncode:
        raise SystemExit(f"{side} with {rows} rows failed:\n{process.stderr[-3000:]}")
    line: dict[str, Any] = json.loads(process.stdout.splitlines()[-1])
    print({name: value for name, value in line.items() if name != "content"}, flush=True)
    return line


def rounds_of(rows: int, rounds: int) -> list[dict[str, Any]]:
    """Both sides, round after round, the order turned around each time."""
    lines = [measure(side, rows) for number in range(rounds) for side in [*SIDES][:: (1, -1)[number % 2]]]
    if len({line["content"] for line in lines}) > 1:
        raise SystemExit(f"the two sides made other tokens of {rows} texts")
    return lines


def summary(lines: list[dict[str, Any]], rows: int) -> dict[str, Any]:
    """Medians, and ratios of one round's two sides."""
    sides = {side: [line for line in lines if (line["side"], line["rows"]) == (side, rows)] for side in SIDES}
    values = {
        side: {key: median(line[key] for line in group) for key in ("seconds", "cpu_seconds", "peak")}
        for side, group in sides.items()
    }
    pairs = [*zip(*sides.values(), strict=True)]
    ratios = {key: median(a[key] / b[key] for a, b in pairs) for key in ("seconds", "cpu_seconds")}
    return {"rows": rows, "rounds": len(pairs), "sides": values, "ratios": ratios}


def body(summaries: list[dict[str, Any]]) -> str:
    header = ("rows", "side", "rows / s", "CPU µs / row", "peak, MB", "times rows / s", "times less CPU")
    cells = []
    for each in summaries:
        for side, values in each["sides"].items():
            ratios = ["", ""] if side == "all at once" else [f"{ratio:.2f}" for ratio in each["ratios"].values()]
            speed, cost = each["rows"] / values["seconds"], values["cpu_seconds"] / each["rows"] * 1e6
            cells.append(
                [f"{each['rows']:,}", side, f"{speed:,.0f}", f"{cost:.0f}", f"{values['peak'] / MB:,.0f}", *ratios]
            )
    return table(header, cells)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", nargs="+", type=int, default=[50_000, 400_000])
    parser.add_argument("--rounds", nargs="+", type=int, default=[7, 1], help="of each number of rows")
    parser.add_argument("--child", nargs=2, metavar=("SIDE", "ROWS"), help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.child:
        print(json.dumps(child(options.child[0], int(options.child[1]))))
        return
    lines = [rounds_of(*pair) for pair in zip(options.rows, options.rounds, strict=True)]
    summaries = [summary(each, each[0]["rows"]) for each in lines]
    text = body(summaries)
    note = (
        "Utterances of the MangaAssist corpus, numbered so that all differ, at most 64 tokens. Medians of rounds; ratios are "
        "medians of one round's two sides. Peak: resident memory above that of a process that holds the texts and the tokenizer."
    )
    versions = {
        "tokenizers": tokenizers.__version__,
        "transformers": transformers.__version__,
        "pyarrow": pa.__version__,
    }
    content = {"versions": versions, "found": summaries, "lines": [line for each in lines for line in each]}
    print(text)
    print(
        write(
            "tokenising",
            "Tokenising in chunks and all at once",
            content,
            f"{note}\n\n{text}",
            "a thread for each core tokenises",
        )
    )
    worst = max(each["sides"]["in chunks"]["peak"] for each in summaries)
    if summaries[0]["ratios"]["seconds"] < RATIO or worst > MEMORY:
        raise SystemExit(f"wanted: {RATIO} times the rows a second, and at most {MEMORY / MB:.0f} MB")


if __name__ == "__main__":
    main()
