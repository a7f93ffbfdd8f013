"""A made-up run folder, without a training: predictions of three models, metrics, curves, config; and a reader of its report."""

import json
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np

from mangakd.core.spec import Head
from mangakd.evaluation import predictions
from mangakd.evaluation.predictions import Predictions
from mangakd.tasks.classification.judge import ClassificationJudge

LABELS = ("order", "refund", "<script>alert(1)</script>", "rare|one")
ROWS, RESAMPLES = 120, 50
JUDGE = ClassificationJudge()
GATE: dict[str, Any] = {
    "agreement": {"measure": "agreement", "at_least": 0.1},
    "lift": {"measure": "lift", "tested": "bound", "above": 0},
    "latency": {"measure": "latency_ms", "at_most": 15},
}
METRICS = {
    "student/params": 1000.0, "teacher/params": 4000.0, "student/megabytes": 4.0, "teacher/megabytes": 16.0,
    "train/samples_per_second": 55.0, "test/accuracy": 0.5,
}  # fmt: skip
ONE_STAGE = """epoch,step,train/clipped,train/loss,train/loss/hard_label,train/loss/output,val/accuracy,val/agreement,val/kl
0,9,1.0,2.5,2.0,0.5,,,
0,9,,,,,0.5,0.6,0.3
1,19,0.0,2.0,1.6,0.4,,,
1,19,,,,,0.6,0.7,0.2
"""
TWO_STAGES = """epoch,step,train/loss,train/loss/hidden,train/loss/output,val/accuracy
0,9,3.0,3.0,,
1,19,2.0,2.0,,
0,29,1.0,,1.0,
0,29,,,,0.4
1,39,0.5,,0.5,
"""


def predicted(split: str, seed: int = 0, baseline: bool = True, several: bool = False) -> Predictions:
    rng = np.random.default_rng([seed, len(split)])
    targets = rng.choice(4, ROWS, p=[0.4, 0.3, 0.2, 0.1])
    truth = np.eye(4)[targets]
    if several:
        truth[:, 0] = 1
    logits = {"teacher": 3 * truth + rng.normal(size=truth.shape) - several}
    logits["student"] = 0.5 * logits["teacher"] + 0.5 * rng.normal(size=truth.shape)
    if baseline:
        logits["baseline"] = truth + rng.normal(size=truth.shape) - several
    texts = [f"where is | my <b>order</b> {i}?\nplease" for i in range(ROWS)]
    counts = np.array([400, 300, 200, 20])
    head, labels = Head("labels", len(LABELS), LABELS, several), truth.astype(np.float32) if several else targets
    answers = {name: {"logits": each} for name, each in logits.items()}
    return Predictions(head, texts, {"labels": labels}, answers, {"train_counts": counts})


def made(folder: Path, logged: str | None = ONE_STAGE, **options: Any) -> Path:
    for split in ("validation", "test"):
        predictions.save(predicted(split, **options), folder, split)
    (folder / "metrics.json").write_text(json.dumps(METRICS))
    (folder / "config.yaml").write_text("distill: {alpha: 0.7}\n")
    if logged is not None:
        (folder / "logs").mkdir()
        (folder / "logs" / "metrics.csv").write_text(logged)
    return folder


class Page(HTMLParser):
    """Fails on tags that are not closed in order; keeps headings, attributes and text."""

    VOID = ("meta", "br", "wbr", "line", "circle", "polyline")

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.headings: list[str] = []
        self.attributes: list[tuple[str, str | None]] = []
        self.words: list[str] = []
        self.feed(text)
        assert not self.open, f"not closed: {self.open}"

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        assert tag != "script"
        self.attributes += attrs
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.attributes += attrs

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.words.append(data)
        if self.open and self.open[-1] == "h2":
            self.headings.append(data)


def read(folder: Path, name: str = "report") -> tuple[Page, str, str]:
    text = (folder / f"{name}.html").read_text()
    return Page(text), text, (folder / f"{name}.md").read_text()
