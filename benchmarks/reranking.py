"""How long does a served ranker take for the documents of one query, beside PyTorch?

    python benchmarks/reranking.py                  6 and 4 layers of MiniLM-L6, 10 documents of about 60 and about 120 tokens

The models are a cross-encoder of MiniLM-L6's shape and one of four of its layers; their heads are untrained, as only time is
measured. Each side tokenises and ranks the same documents of the same queries, on one thread, in one process. PyTorch computes
the documents of a query as one batch. Sides take turns, and the order turns around each round. The aim: at most 0.30 of PyTorch's
time of the same model for the fastest INT8 variant.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from collections.abc import Callable, Sequence
from importlib.metadata import version
from pathlib import Path

import numpy as np
import torch
from results_file import table, write
from torch import nn
from transformers import AutoModelForSequenceClassification, AutoTokenizer

from mangakd import runtime
from mangakd.export.variants import make
from mangakd.models.location import locate
from mangakd.models.sentence_transformers import Settings, write_cross_encoder

PACKAGES = ("torch", "transformers", "onnxruntime", "openvino")
VARIANTS = ("onnx_fp32", "onnx_int8", "onnx_int8_static", "openvino_fp32", "openvino_int8_weights", "openvino_int8")
LAYERS = {"6 layers": (0, 1, 2, 3, 4, 5), "4 layers": (0, 2, 3, 5)}
SENTENCES = (
    "The order was sent on Monday and is on its way to your address.", "A refund takes three to five working days.",
    "You can change the volume of a series until it is packed.", "We do not ship hardcover editions to islands in winter.",
    "The second season follows the manga up to its ninth volume.", "Points of the reading club expire after two years.",
    "Please send a photo of the damaged cover within a week.", "The box set holds all volumes, a map and two posters.",
)  # fmt: skip
QUERIES = ("where is my order", "how long does a refund take", "is the box set complete", "my book has a damaged cover")
LENGTH = 128
PYTORCH = "pytorch_fp32"
Rank = Callable[[str, Sequence[str]], object]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--documents", type=int, default=10)
    parser.add_argument("--rounds", type=int, default=15)
    options = parser.parse_args()
    torch.set_num_threads(1)
    results, bodies = {}, []
    with tempfile.TemporaryDirectory() as scratch:
        for name, layers in LAYERS.items():
            sides = sides_of(Path(scratch) / name.replace(" ", "_"), layers)
            for sentences in (4, 9):
                texts = documents(options.documents, sentences)
                title = f"{name}, {options.documents} documents of {tokens(texts)} tokens"
                results[title] = measure(sides, texts, options.rounds)
                bodies.append(f"## {title}\n\n{rows(results[title])}")
    intro = (
        "CPU milliseconds from a query with its documents to their ranking, tokenising included; medians of rounds in which all "
        "sides took turns. Ratios are medians of the ratios within a round."
    )
    versions = {package: version(package) for package in PACKAGES}
    content = {"versions": versions, "rounds": options.rounds, "results": results}
    print(write("reranking", "Reranking the documents of a query", content, "\n\n".join([intro, *bodies])).read_text())


def documents(count: int, sentences: int) -> list[str]:
    return [" ".join(SENTENCES[(i + j) % len(SENTENCES)] for j in range(sentences)) for i in range(count)]


def tokens(texts: Sequence[str]) -> int:
    """The mean number, with special tokens and the query."""
    tokenizer = AutoTokenizer.from_pretrained(locate("embedded"))
    pairs = tokenizer([QUERIES[0]] * len(texts), list(texts), truncation="only_second", max_length=LENGTH)
    return round(np.mean([len(ids) for ids in pairs["input_ids"]]))


def sides_of(folder: Path, layers: Sequence[int]) -> dict[str, Rank]:
    source = locate("embedded")
    model = AutoModelForSequenceClassification.from_pretrained(source, num_labels=1).eval()
    encoder = model.bert.encoder
    encoder.layer = nn.ModuleList(encoder.layer[i] for i in layers)
    model.config.num_hidden_layers = len(layers)
    tokenizer = AutoTokenizer.from_pretrained(source)
    model.save_pretrained(folder / "student")
    tokenizer.save_pretrained(folder / "student")
    write_cross_encoder(Settings(max_length=LENGTH), nn.Identity(), folder / "student")
    calibration = [(query, text) for query in QUERIES for text in documents(16, 5)]
    made = make(folder / "student", folder / "export", VARIANTS, calibration)

    @torch.inference_mode()
    def rank(query: str, texts: Sequence[str]) -> object:
        batch = tokenizer(
            [query] * len(texts),
            list(texts),
            truncation="only_second",
            max_length=LENGTH,
            padding=True,
            return_tensors="pt",
        )
        return model(**batch).logits[:, 0].argsort(descending=True, stable=True)

    return {PYTORCH: rank, **{path.name: runtime.load(path, 1).rank for path in made}}


def measure(sides: dict[str, Rank], texts: Sequence[str], rounds: int) -> dict[str, dict[str, float]]:
    """Side → CPU and wall milliseconds of a query, and the CPU's ratio to PyTorch's."""
    times: dict[str, list[tuple[float, float]]] = {name: [] for name in sides}
    for turn in range(rounds + 1):
        for name in [*sides][:: 1 if turn % 2 else -1]:
            sides[name](QUERIES[0], texts)  # the caches held another model
            cpu, wall = time.process_time(), time.perf_counter()
            for query in QUERIES:
                sides[name](query, texts)
            spent = time.process_time() - cpu, time.perf_counter() - wall
            if turn:
                times[name].append((1000 * spent[0] / len(QUERIES), 1000 * spent[1] / len(QUERIES)))
    arrays = {name: np.array(own) for name, own in times.items()}
    base = arrays[PYTORCH][:, 0]
    return {
        name: {"cpu_ms": float(np.median(own[:, 0])), "wall_ms": float(np.median(own[:, 1])),
               "ratio": float(np.median(own[:, 0] / base))}
        for name, own in arrays.items()
    }  # fmt: skip


def rows(result: dict[str, dict[str, float]]) -> str:
    cells = [[name, f"{own['cpu_ms']:.1f}", f"{own['ratio']:.2f}"] for name, own in result.items()]
    return table(["side", "CPU ms", "of PyTorch's"], cells)


if __name__ == "__main__":
    main()
