"""What does quantisation-aware distillation win back, where INT8 made after training loses too much?

    python benchmarks/quantised.py --work PATH

MiniLM's first two layers, fine-tuned, teach a copy of themselves 1,500 rows of the synthetic corpus: small, so that it takes
minutes. INT8 costs such a student next to nothing, so it is made fragile: in every attention head one query channel is
multiplied by SCALE and its key channel divided by it. Their product, and so every answer in fp32, stays what it was; but INT8
has one range for all channels of the queries, and the others fall between its levels. From this student two stages of the
same losses, length and learning rate start, one with quantisers and one without, which says what longer training alone would
do. Every row of the table answers the same test texts; drops are paired.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import torch
from results_file import table, write
from transformers import AutoModel, AutoModelForSequenceClassification, AutoTokenizer

from mangakd import runtime
from mangakd.evaluation import predictions
from mangakd.evaluation.bootstrap import Estimate, bootstrap
from mangakd.evaluation.statistics import Answers, accuracy
from mangakd.export.hf import save_student
from mangakd.export.variants import make
from mangakd.models import location

ROOT = Path(__file__).resolve().parents[1]
SCALE = 512.0
LAYERS = 2
EPOCHS, LR = 2, 2e-4
LENGTH = 64
COMMON = [
    "data=manga_intent", "data.train_limit=1500", "data.val_limit=300", "data.test_limit=1500", f"data.max_length={LENGTH}",
    "hardware=cpu", "hardware.batch_size=32", "teacher.fit.epochs=6", "teacher.fit.lr=5e-4", "logger=[]", "resume=auto",
]  # fmt: skip
STAGE = f"losses: [hard_label, output], epochs: {EPOCHS}, lr: {LR}"
FP32, INT8, QAT = "openvino_fp32", "openvino_int8", "openvino_int8_qat"


def teacher(folder: Path) -> Path:
    """MiniLM's first layers, without a head."""
    source = location.locate("embedded")
    model = AutoModel.from_pretrained(source)
    model.encoder.layer = model.encoder.layer[:LAYERS]
    model.config.num_hidden_layers = LAYERS
    model.save_pretrained(folder)
    AutoTokenizer.from_pretrained(source).save_pretrained(folder)
    return folder


def train(folder: Path, *words: str) -> Path:
    """A run of train.py in `folder`; its student."""
    command = [
        sys.executable,
        "train.py",
        *COMMON,
        f"teacher.path={folder.parent / 'teacher'}",
        *words,
        f"hydra.run.dir={folder}",
        f"paths.cache={folder.parent}/cache",
    ]
    if not (folder / "report.html").is_file():
        subprocess.run(command, cwd=ROOT, check=True)
    return folder / "student"


def fragile(student: Path, folder: Path) -> Path:
    """The same student, answering alike in fp32, with one loud query channel in each head."""
    model = AutoModelForSequenceClassification.from_pretrained(student)
    with torch.no_grad():
        for layer in model.bert.encoder.layer:
            attention = layer.attention.self
            loud = torch.arange(0, attention.all_head_size, attention.attention_head_size)
            for linear, factor in ((attention.query, SCALE), (attention.key, 1 / SCALE)):
                linear.weight[loud] *= factor
                linear.bias[loud] *= factor
    save_student(model, AutoTokenizer.from_pretrained(student), folder, "")
    return folder


def answers(student: Path, name: str, texts: list[str], calibration: list[str]) -> np.ndarray:
    """(N, C) logits of a variant, through the runtime, 32 texts at a time."""
    (variant,) = make(student, student.parent / f"variants_{student.name}", (name,), calibration, LENGTH)
    return runtime.load(variant, threads=1).outputs(texts, 32)


def rows(work: Path) -> tuple[dict[str, np.ndarray], predictions.Predictions]:
    """name of a row → what it answers on test; and the test split."""
    teacher(work / "teacher")
    plain = train(work / "plain", f"student.layers={[*range(1, LAYERS + 1)]}", "trainer.max_epochs=2")
    loud = fragile(plain, work / "fragile")
    start = ["student=pretrained", f"student.path={loud}", "~stages.distil"]
    longer = train(work / "longer", *start, f"+stages.longer={{{STAGE}}}")
    quantised = train(work / "quantised", *start, f"+stages.quantised={{quantise: int8, {STAGE}}}")
    test = predictions.load(work / "plain", "test")
    calibration = predictions.load(work / "plain", "validation").texts  # as good as training texts to find ranges on
    variants = {
        "student, fp32": (plain, FP32),
        "INT8 after training": (plain, INT8),
        "made fragile, fp32": (loud, FP32),
        "made fragile, INT8 after training": (loud, INT8),
        "fragile, trained on without quantisers, fp32": (longer, FP32),
        "fragile, trained on without quantisers, INT8 after training": (longer, INT8),
        "fragile, trained on with quantisers, fp32 (quantisers taken out)": (quantised, FP32),
        "fragile, trained on with quantisers, INT8 after training": (quantised, INT8),
        "fragile, trained on with quantisers, INT8 as trained": (quantised, QAT),
    }
    return {title: answers(*of, test.texts, calibration) for title, of in variants.items()}, test


def cell(estimate: Estimate, form: str = ".2f") -> str:
    low, high = estimate.interval
    return f"{estimate.value:{form}} [{low:{form}}, {high:{form}}]"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--work", type=Path, required=True, help="folder for the runs; one that was stopped goes on")
    torch.set_num_threads(1)
    logits, test = rows(parser.parse_args().work.absolute())
    scores = bootstrap({title: accuracy(Answers(own, test.truth["labels"])) for title, own in logits.items()})
    base = scores["made fragile, fp32"]
    drops = {title: (base - score) * 100 for title, score in scores.items()}
    lines = [[title, cell(scores[title] * 100), cell(drops[title])] for title in scores]
    results: dict[str, Any] = {
        title: {
            "accuracy": score.value, "interval": score.interval,
            "drop_points": drops[title].value, "drop_interval": drops[title].interval,
        }
        for title, score in scores.items()
    }  # fmt: skip
    versions = {name: version(name) for name in ("torch", "transformers", "nncf", "openvino", "mangakd")}
    content = {
        "rows": len(test.texts),
        "scale": SCALE,
        "epochs": EPOCHS,
        "lr": LR,
        "found": results,
        "versions": versions,
    }
    body = (
        f"Accuracy on {len(test.texts):,} test rows of the synthetic corpus, and points lost against the fragile student in "
        f"fp32; brackets are 95 % of paired bootstrap resamples. Both stages: {EPOCHS} epochs of 1,500 rows, learning rate "
        f"{LR:g}, hard labels and soft targets. One seed.\n\n" + table(["", "accuracy, %", "points lost"], lines)
    )
    write("quantised", "INT8 after training and in training, of a fragile student", content, body)
    print(body)


if __name__ == "__main__":
    main()
