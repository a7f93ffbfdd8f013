"""What do the exports of a language model keep, and how fast do they write, beside the merged folder in PyTorch?

    python benchmarks/language_exports.py                       SmolLM2-135M-Instruct: merged, gguf_f16, gguf_q8_0, K-quants
    python benchmarks/language_exports.py --rows gguf_q8_0      one row; rows that are in results/ stay
    MANGAKD_OPTIMUM_PYTHON=.venv-optimum/bin/python python benchmarks/language_exports.py --rows openvino_int8,openvino_int4
    python benchmarks/language_exports.py --layers 10           its first 10 layers, without training: results under another name

Each row is made and checked as `mangakd export` does it. Then it predicts the same answer tokens of the shop's validation
questions as the merged folder, and writes after a prompt in turns with it, on one thread. Speeds are of the processor's time,
which other processes do not lengthen; those on the clock are in the .json. The aim: gguf_q8_0 writes twice as fast as PyTorch.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
from results_file import RESULTS, table, write

from mangakd.core.errors import UserError
from mangakd.data.chat import ChatTemplate
from mangakd.data.chat_tokens import Marked, Marker
from mangakd.export.language import student as students
from mangakd.export.language.data import LanguageData, LanguageSplit
from mangakd.export.language.quality import compare, predict
from mangakd.export.language.student import Student
from mangakd.export.language.variants import MERGED, make, open_variant
from mangakd.models import load
from mangakd.models.location import locate
from mangakd.runtime.language_manifest import read
from mangakd.shop.manga_answers import make_split

PACKAGES = ("torch", "transformers", "gguf", "xllamacpp", "openvino")
ROWS = ("gguf_f16", "gguf_q8_0", "gguf_q6_k", "gguf_q5_k_m", "gguf_q4_k_m")
PROMPT, NEW = 128, 32  # tokens
SHIPS = 1.02  # perplexity ratio that ships


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--student", default="embedded_lm", help="a folder, or embedded_lm")
    parser.add_argument("--layers", type=int, help="keep the first ones alone")
    parser.add_argument("--rows", default=",".join(ROWS), help="variants; a row that is in results/ is measured again")
    parser.add_argument("--tokens", type=int, default=1000, help="answer tokens that are predicted")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument(
        "--work", type=Path, default=Path(os.environ.get("MANGAKD_CACHE", ".cache")) / "language_exports"
    )
    options = parser.parse_args()
    name = "language_exports" + (f"_{options.layers}_layers" if options.layers else "")
    folder = Path(locate(options.student, "--student"))
    if options.layers:
        folder = cut(folder, options.work / f"student_{options.layers}", options.layers)
    student = students.read(folder)
    sequences = questions(student, options.tokens)
    out = options.work / f"export_{student.source['sha256'][:12]}"
    calibration = answers(student, "train")
    results = before(name, student, len(sequences))
    for row in options.rows.split(","):
        try:
            folders = make(
                student, out, [row], LanguageData(calibration, LanguageSplit([], "")).texts(student.tokenizer)
            )
        except UserError as error:  # a row that this machine cannot make is told, and the others are measured
            print(f"{row}: {error}", flush=True)
            continue
        print(f"{row}: made", flush=True)
        results |= measure(folders, sequences, options.rounds)
        report(name, student, results, sequences, options)


def cut(folder: Path, place: Path, layers: int) -> Path:
    """The student of the first layers."""
    if not (place / "config.json").is_file():
        whole = students.read(folder)
        model = whole.read()
        model.model.layers = model.model.layers[:layers]
        model.config.num_hidden_layers = layers
        model.save_pretrained(place)
        whole.tokenizer.save_pretrained(place)
    return place


def questions(student: Student, tokens: int) -> list[Marked]:
    return LanguageSplit(answers(student, "validation"), "the shop").cut(tokens, student.context)


def answers(student: Student, split: str) -> list[Marked]:
    """Prompts of the shop with their answers."""
    tokenizer = load.load_tokenizer(str(student.where), "--student", "tokens")
    marker = Marker(tokenizer, ChatTemplate.of(tokenizer), student.context)
    talks = [(("user", each.prompt), ("assistant", each.answer)) for each in make_split(split, 150)]
    return [marked for talk in talks for marked in marker.conversation(talk)]


def before(name: str, student: Student, sequences: int) -> dict[str, Any]:
    """Rows of an earlier run on the same student and sequences."""
    file = RESULTS / f"{name}.json"
    content = json.loads(file.read_text()) if file.is_file() else {}
    same = content.get("sha256") == student.source["sha256"] and content.get("sequences") == sequences
    rows: dict[str, Any] = content["rows"] if same else {}
    return rows


def measure(folders: list[Path], sequences: list[Marked], rounds: int) -> dict[str, Any]:
    """Of merged and of one variant, which take turns."""
    predictions, rows = {}, {}
    with contextlib.ExitStack() as stack:
        engines = {folder.name: stack.enter_context(open_variant(folder)[1]) for folder in folders}
        for own, engine in engines.items():
            predictions[own] = predict(engine, sequences)
        qualities = compare(predictions[MERGED], predictions, sequences)
        prompt = np.resize(np.array([token for each in sequences for token in each.ids]), PROMPT).tolist()
        times = in_rounds(engines, prompt, rounds)
        for folder in folders:
            quality, content = qualities[folder.name], read(folder).content
            rows[folder.name] = {
                "engine": content["engine"], "recipe": content["recipe"], "parity": content["parity"],
                "perplexity": quality.perplexity.value, "ratio": quality.ratio.value,
                "ratio_interval": list(quality.ratio.interval),
                "kl": quality.kl.value, "agreement": quality.agreement.value, "right": quality.right.value,
                "megabytes": sum(each.stat().st_size for each in folder.iterdir()) / 1e6,
                "load_seconds": engines[folder.name].load_seconds, "peak_rss_mb": engines[folder.name].peak_rss_mb,
                **speeds(times[folder.name], times[MERGED]),
            }  # fmt: skip
    return rows


Rounds = list[tuple[float, float, float, float]]


def in_rounds(engines: dict[str, Any], prompt: list[int], rounds: int) -> dict[str, Rounds]:
    """Of each round the seconds of the prompt and of prompt and answer: on the clock, then of the processor."""
    times: dict[str, Rounds] = {own: [] for own in engines}
    for engine in engines.values():
        engine.seconds(prompt, 2)
    for turn in range(rounds):
        for own in [*engines][:: 1 if turn % 2 == 0 else -1]:
            first, whole = engines[own].seconds(prompt, 1), engines[own].seconds(prompt, NEW)
            times[own].append((first[0], whole[0], first[1], whole[1]))
    return times


def speeds(own: Rounds, merged: Rounds) -> dict[str, float]:
    """Tokens a second of the processor; times: the median of the ratios to merged within a round."""
    mine, base = np.array(own), np.array(merged)

    def generation(rounds: np.ndarray, clock: int) -> np.ndarray:
        return (NEW - 1) / np.maximum(rounds[:, clock + 1] - rounds[:, clock], 1e-9)

    return {
        "prompt_per_cpu_second": PROMPT / float(np.median(mine[:, 2])),
        "tokens_per_cpu_second": float(np.median(generation(mine, 2))),
        "prompt_times": float(np.median(base[:, 2] / mine[:, 2])),
        "times": float(np.median(generation(mine, 2) / generation(base, 2))),
        "prompt_per_second": PROMPT / float(np.median(mine[:, 0])),
        "tokens_per_second": float(np.median(generation(mine, 0))),
    }


def report(
    name: str, student: Student, rows: dict[str, Any], sequences: list[Marked], options: argparse.Namespace
) -> None:
    tokens = sum(sum(each.targets[1:]) for each in sequences)
    lines = [line(own, each) for own, each in rows.items()]
    header = [
        "", "ids", "greedy texts", "perplexity", "× merged", "KL, nats", "agrees", "MB", "prompt, tokens/s",
        "generation, tokens/s", "× PyTorch", "ships",
    ]  # fmt: skip
    title = f"Exports of a language model: {student.source['parameters'] / 1e6:.0f}M parameters"
    intro = (
        f"{tokens:,} answer tokens of {len(sequences)} questions to the shop, each predicted after the true tokens before it, "
        "by the engine's own numbers. ids: texts that llama.cpp (or the engine) and the student's tokenizer read alike. Greedy "
        "texts: how many of 20 prompts are continued with the same 24 tokens; in brackets by how many nats the merged folder "
        f"prefers its own token where a text leaves it. Speed: {PROMPT} tokens of prompt and {NEW} new ones, in tokens a "
        f"second of processor time, in turns with the merged folder; × PyTorch of generation. ships: perplexity at most "
        f"{SHIPS} × the merged folder's. The package holds these weights in Q4_1, and rows of 576 numbers fall back to Q5_1 in "
        "gguf_q5_k_m and to Q5_0 in gguf_q4_k_m: of these two Q5_1 is further from the weights."
    )
    installed = {package: version(package) for package in PACKAGES if _has(package)}
    content = {
        "versions": installed, "sha256": student.source["sha256"], "sequences": len(sequences), "tokens": tokens, "rows": rows,
    }  # fmt: skip
    print(write(name, title, content, f"{intro}\n\n{table(header, lines)}").read_text(), flush=True)


def line(name: str, row: dict[str, Any]) -> list[str]:
    parity = row["parity"]
    return [
        name, f"{parity['texts']} of {parity['texts']}" if parity else "–",
        f"{parity['equal']} of {parity['prompts']} ({parity['largest_gap']:.2f})" if parity else "–",
        f"{row['perplexity']:.3f}", f"{row['ratio']:.4f}", f"{row['kl']:.4f}", f"{row['agreement']:.1%}",
        f"{row['megabytes']:.0f}",
        f"{row['prompt_per_cpu_second']:.0f}", f"{row['tokens_per_cpu_second']:.1f}", f"{row['times']:.2f} ×",
        "yes" if row["ratio"] <= SHIPS else "no",
    ]  # fmt: skip


def _has(package: str) -> bool:
    try:
        version(package)
    except ModuleNotFoundError:
        return False
    return True


if __name__ == "__main__":
    main()
