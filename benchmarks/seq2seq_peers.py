"""Encoder–decoders: mangakd beside Hugging Face's Seq2SeqTrainer, tokens per CPU second of a training step, in one thread.

    python benchmarks/seq2seq_peers.py --data ../shared/data --peers-python PATH/TO/python --rounds 3

Runs the scripts in benchmarks/peers as child processes, in turn. Each fine-tunes a T5 of random weights in steps of 16 turns of
QReCC and CAsT. The peer needs transformers, accelerate and datasets; benchmarks/README.md tells how to make its Python.
"""

from __future__ import annotations

import json
import sys
import tempfile
from pathlib import Path
from typing import Any

from peer_runs import PEERS, Line, child, measure, median, parse, save

sys.path.insert(0, str(PEERS))
import seq2seq_common
from transformers import AutoModelForSeq2SeqLM

from mangakd.models import embedded_t5

THEIRS, OURS = "hf_seq2seq.py", "mangakd_seq2seq.py"
SMALL = {**embedded_t5.SIZES, "d_model": 512, "d_ff": 2048, "num_layers": 6, "num_decoder_layers": 6, "num_heads": 8}
MODELS: dict[
    str, tuple[dict[str, Any], int, int]
] = {  # sizes, entries of the table of embeddings (0: the tokenizer's), steps
    "T5-small": (SMALL, 32128, 5),
    "T5 of 2 + 2 layers": (embedded_t5.SIZES, 0, 60),
}
VARIANTS: dict[str, tuple[str, str, int]] = {  # script, variant, times the steps: shorter steps need more of them
    "Seq2SeqTrainer": (THEIRS, "random", 1),
    "Seq2SeqTrainer, similar lengths": (THEIRS, "by_length", 2),
    "mangakd": (OURS, "plain", 2),
    "mangakd, stored teacher": (OURS, "stored", 2),
}
NOTE = """Medians of {rounds} rounds. `ratio` is of tokens per CPU second to the Seq2SeqTrainer of the same model and precision.
Tokens are those of sources and targets, without padding.

- Equal for all: the model, turns of QReCC and CAsT with their histories in steps of 16, sources of at most 256 tokens, AdamW, no
  clipping, no dropout, one torch thread. *T5-small*: 6 + 6 layers of 512, V 32,128. *T5 of 2 + 2 layers*: of 256, V 2,048.
- *Seq2SeqTrainer*: DataCollatorForSeq2Seq pads each batch to its longest source and target; random order. *similar lengths*: its
  option `group_by_length`, which knows the sources alone.
- *mangakd*: fine-tuning with the same loss, as it comes: steps of similar sources and targets. *stored teacher*: forward KL with
  64 tokens and the mass of all others at each position besides.
- *bf16*: matrix products in bf16 (`hardware.precision=auto` has it on a CPU with bf16 units)."""


def rows_of(data: Path, file: Path) -> list[str]:
    """Write the turns that fit; the texts that the tokenizer is trained on."""
    every = [
        json.loads(line)
        for name in ("qrecc", "cast")
        for line in (data / name / "rewrites.jsonl").read_text(encoding="utf-8").splitlines()
    ]
    rows = [{"turns": [*row["history"], row["utterance"]], "rewrite": row["rewrite"]} for row in every]
    texts = [text for row in rows for text in (*row["turns"], row["rewrite"])]
    tokenizer = embedded_t5.train_tokenizer(texts)
    read = [tokenizer([text(row) for row in rows])["input_ids"] for text in (_source, lambda row: row["rewrite"])]
    most = (seq2seq_common.SOURCE, seq2seq_common.TARGET)
    fits = [row for row, *ids in zip(rows, *read, strict=True) if all(map(lambda own, n: len(own) <= n, ids, most))]
    file.write_text("".join(json.dumps(row) + "\n" for row in fits), encoding="utf-8")
    return texts


def _source(row: dict[str, Any]) -> str:
    return seq2seq_common.SEPARATOR.join(row["turns"])


def folder_of(title: str, texts: list[str], cache: Path) -> Path:
    """A model of random weights and the tokenizer of the texts."""
    sizes, vocabulary, _ = MODELS[title]
    folder = embedded_t5.folder(texts, cache, sizes=sizes)
    if vocabulary:
        model = AutoModelForSeq2SeqLM.from_pretrained(folder)
        model.resize_token_embeddings(vocabulary)
        model.save_pretrained(folder)
    return folder


def save_all(lines: dict[str, list[Line]], name: str) -> Path:
    speeds = {title: median(each, "tokens_per_cpu_s") for title, each in lines.items()}
    bases = {title: speeds[f"{title.partition(':')[0]}: {_base(title)}"] for title in speeds}
    ratios = {title: round(speed / bases[title], 2) for title, speed in speeds.items()}
    rows = [[title, f"{speed:.0f}", f"{ratios[title]:.2f}"] for title, speed in speeds.items()]
    return save(
        name, "Encoder–decoders beside Seq2SeqTrainer", lines, ratios, ("what", "tokens per CPU s", "ratio"), rows, NOTE
    )


def _base(title: str) -> str:
    return next(iter(VARIANTS)) + (", bf16" if title.endswith(", bf16") else "")


def main() -> None:
    options = parse(__doc__.splitlines()[0], "with qrecc and cast", "accelerate", None, "seq2seq_peers")
    titles = {
        f"{model}: {variant}{mark}": (model, variant, mark)
        for model in MODELS
        for mark in ("", ", bf16")
        for variant in VARIANTS
    }
    with tempfile.TemporaryDirectory() as scratch:
        data = Path(scratch) / "rows.jsonl"
        texts = rows_of(Path(options.data), data)
        folders = {model: folder_of(model, texts, Path(scratch)) for model in MODELS}

        def run(title: str, seed: int) -> Line:
            model, variant, mark = titles[title]
            script, own, times = VARIANTS[variant]
            words = [
                "--data",
                data,
                "--model",
                folders[model],
                "--variant",
                own,
                "--seed",
                seed,
                *(["--bf16"] if mark else []),
            ]
            words += ["--steps", MODELS[model][2] * times]
            python = sys.executable if script == OURS else options.peers_python
            return child(title, [python, str(PEERS / script), *map(str, words)])

        for lines in measure([*titles], options.rounds, run, "tokens_per_cpu_s"):
            print(save_all(lines, options.name))  # after each round, so that a run that is stopped leaves what it has


if __name__ == "__main__":
    main()
