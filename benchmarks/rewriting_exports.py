"""How long does a served encoder–decoder take to rewrite one query, beside PyTorch's `generate`?

    python benchmarks/rewriting_exports.py          a T5 of t5-small's shape, 24 new tokens

The model has t5-small's shape (6 + 6 layers, d_model 512, 32,128 tokens) and random weights, as only time is measured; no side
stops before the last of the new tokens. Each side tokenises, writes and decodes the same queries, one at a time, on one thread
and in one process. PyTorch writes greedily with its cache. Sides take turns, and the order turns around each round.
The aim: the fastest INT8 variant is 3 times as fast as PyTorch.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path

import numpy as np
import torch
from results_file import table, write
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers
from transformers import (
    AutoModelForSeq2SeqLM,
    AutoTokenizer,
    PreTrainedTokenizerFast,
    T5Config,
    T5ForConditionalGeneration,
)

from mangakd import runtime
from mangakd.export.seq2seq import Writing
from mangakd.export.variants import make

PACKAGES = ("torch", "transformers", "onnxruntime", "openvino")
VARIANTS = ("onnx_fp32", "onnx_int8", "openvino_fp32", "openvino_int8_weights", "openvino_int8")
TURNS = (
    "where is my order of the third box set", "The order was sent on Monday and is on its way to your address.",
    "how long does a refund take", "A refund takes three to five working days after we have the parcel.",
    "who drew the cover of the second volume", "The cover was drawn by the author of the series.",
    "when does the next season begin", "The second season follows the manga up to its ninth volume.",
)  # fmt: skip
LAST = ("since when?", "and for the deluxe edition?", "was it late?", "who wrote it?")
QUERIES = [" ||| ".join([*TURNS[2 * i : 2 * i + 2], last]) for i, last in enumerate(LAST)]
PYTORCH = "pytorch_fp32"
Rewrite = Callable[[str], object]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tokens", type=int, default=24, help="new tokens of each text")
    parser.add_argument("--rounds", type=int, default=10)
    options = parser.parse_args()
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as scratch:
        sides, read, sizes = sides_of(Path(scratch), options.tokens)
        results = measure(sides, options.rounds)
    intro = (
        f"CPU milliseconds from a query of {read:.0f} tokens to its text of {options.tokens} new tokens: the median of "
        f"{options.rounds} rounds in which all sides took turns. Ratios are medians of the ratios within a round. wall: medians "
        "of the time on the clock, which other processes lengthen."
    )
    lines = [
        [name, f"{own['ms']:.0f}", f"{own['times_as_fast']:.2f} ×", f"{own['wall_ms']:.0f}", f"{sizes[name]:.0f}"]
        for name, own in results.items()
    ]
    body = table(["", "CPU ms a query", "times as fast as PyTorch", "wall ms", "MB"], lines)
    content = {
        "versions": {package: version(package) for package in PACKAGES}, "rounds": options.rounds, "tokens": options.tokens,
        "source_tokens": read, "results": results, "megabytes": sizes,
    }  # fmt: skip
    print(write("rewriting_exports", "Rewriting one query", content, f"{intro}\n\n{body}").read_text())


def sides_of(scratch: Path, new: int) -> tuple[dict[str, Rewrite], float, dict[str, float]]:
    """Side → what rewrites a query; tokens of a query; side → MB."""
    folder = student(scratch / "student")
    tokenizer = AutoTokenizer.from_pretrained(folder)
    model = AutoModelForSeq2SeqLM.from_pretrained(folder).eval()
    model.generation_config.eos_token_id = None
    made = make(folder, scratch / "export", VARIANTS, QUERIES * 4 + list(TURNS) + list(LAST), 128, writing=Writing(new))
    for path in made:
        file = path / "manifest.json"
        content = json.loads(file.read_text())
        file.write_text(json.dumps({**content, "decoding": {**content["decoding"], "stops": []}}))

    @torch.inference_mode()
    def rewrite(query: str) -> object:
        inputs = tokenizer(query, return_tensors="pt", return_token_type_ids=False)
        ids = model.generate(**inputs, max_new_tokens=new, do_sample=False, num_beams=1)
        assert ids.shape[1] == 1 + new
        return tokenizer.decode(ids[0], skip_special_tokens=True)

    sides: dict[str, Rewrite] = {PYTORCH: rewrite}
    sizes = {PYTORCH: sum(p.numel() for p in model.parameters()) * 4 / 1e6}
    for path in made:
        loaded = runtime.load(path, 1)
        assert (loaded.outputs(QUERIES[:1]) >= 0).sum() == new
        sides[path.name] = lambda query, loaded=loaded: loaded.rewrite([query])  # type: ignore[misc]
        sizes[path.name] = sum(file.stat().st_size for file in path.glob("*coder.*")) / 1e6
    return sides, float(np.mean([len(tokenizer(query).input_ids) for query in QUERIES])), sizes


def student(folder: Path) -> Path:
    backend = Tokenizer(models.BPE())
    backend.pre_tokenizer, backend.decoder = pre_tokenizers.ByteLevel(add_prefix_space=False), decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(
        vocab_size=600, special_tokens=["<pad>", "</s>"], initial_alphabet=alphabet, show_progress=False
    )
    backend.train_from_iterator([*QUERIES, *TURNS], trainer)
    backend.post_processor = processors.TemplateProcessing(single="$A </s>", special_tokens=[("</s>", 1)])
    PreTrainedTokenizerFast(tokenizer_object=backend, pad_token="<pad>", eos_token="</s>").save_pretrained(folder)
    torch.manual_seed(0)
    config = T5Config(num_layers=6, num_decoder_layers=6, decoder_start_token_id=0, pad_token_id=0, eos_token_id=1)
    T5ForConditionalGeneration(config).save_pretrained(folder)
    return folder


def measure(sides: dict[str, Rewrite], rounds: int) -> dict[str, dict[str, float]]:
    """Side → CPU and wall milliseconds of a query, and how many times as fast as PyTorch it is."""
    times: dict[str, list[tuple[float, float]]] = {name: [] for name in sides}
    for turn in range(rounds + 1):
        for name in [*sides][:: 1 if turn % 2 else -1]:
            sides[name](QUERIES[0])  # the caches held another model
            cpu, wall = time.process_time(), time.perf_counter()
            for query in QUERIES:
                sides[name](query)
            spent = time.process_time() - cpu, time.perf_counter() - wall
            if turn:
                times[name].append((1000 * spent[0] / len(QUERIES), 1000 * spent[1] / len(QUERIES)))
    base = np.array(times[PYTORCH])[:, 0]
    return {
        name: {
            "ms": float(np.median(np.array(own)[:, 0])), "wall_ms": float(np.median(np.array(own)[:, 1])),
            "times_as_fast": float(np.median(base / np.array(own)[:, 0])),
        }
        for name, own in times.items()
    }  # fmt: skip


if __name__ == "__main__":
    main()
