"""`python scripts/check_drift.py student=… teacher=… data=…`: does the student still say what the teacher says, on new text?

Exit code 1 and advice when it does not. Each check is a line of the history, which is plotted beside it.
"""

import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import torch
from omegaconf import DictConfig, OmegaConf

from mangakd.cli.logs import start_logging
from mangakd.core.errors import UserError
from mangakd.core.invocation import command
from mangakd.data.tables import read_texts
from mangakd.evaluation import drift
from mangakd.evaluation.report.write import write
from mangakd.models import load
from mangakd.models.heads import trained_head
from mangakd.models.labels import alignment


def run(config: DictConfig) -> None:
    """One check. Raises SystemExit(1) when the student has drifted, UserError for models that cannot be compared."""
    start_logging(None)
    for key, value in config.compare.items():
        if value is None:
            usage = f"{command('check_drift')} student=<folder> teacher=<folder> data=<file>"
            raise UserError(f"{key} is not set: {usage}")
    check = _check(config)
    limits = drift.limits_of(config.limits)
    student = Path(str(config.compare.student)).expanduser()
    history = Path(config.history).expanduser() if config.history else student.parent / "drift.jsonl"
    checks = drift.append(history, check)
    write(history.with_suffix(""), f"Drift of {student}", drift.sections(checks, limits))
    print(
        f"{check.rows} texts: KL {check.kl:.3f} [{check.kl_interval[0]:.3f}, {check.kl_interval[1]:.3f}], agreement "
        f"{check.agreement:.1%} [{check.agreement_interval[0]:.1%}, {check.agreement_interval[1]:.1%}]\n"
        f"history: {history}, plotted in {history.with_suffix('.html').name}"
    )
    if breaches := check.breaches(limits):
        print(f"the student has drifted: {'; '.join(breaches)}. {drift.advice(_alpha(student))}")
        sys.exit(1)


def _check(config: DictConfig) -> drift.Check:
    about = {key: str(value) for key, value in config.compare.items()}
    texts = read_texts(str(config.compare.data), config.text_column, "data", "text_column")
    student, teacher = _model(about["student"], "student"), _model(about["teacher"], "teacher")
    head = trained_head(student[0].config)
    order = alignment(trained_head(teacher[0].config, head), head, about["teacher"])
    own, other = (_logits(*each, texts, config) for each in (student, teacher))
    several = head.several
    about["at"] = datetime.now(UTC).isoformat(timespec="seconds")
    other = other if order is None else other[:, order.numpy()]
    return drift.compare(own, other, several, about, config.resamples, config.seed)


def _model(path: str, key: str) -> tuple[Any, Any]:
    model = load.trained_classifier(path, key)
    if model is None:
        raise UserError(f"{key}={path} has no trained classification head. Give the folder of a fine-tuned model.")
    tokenizer = load.load_tokenizer(path, key)
    load.pad_alike(model, tokenizer)
    return model.eval(), tokenizer


def _logits(model: Any, tokenizer: Any, texts: list[str], config: DictConfig) -> np.ndarray:
    """(N, C), in the order of the texts."""
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    model.to(device)
    parts = []
    with torch.inference_mode():
        for start in range(0, len(texts), config.batch_size):
            batch = texts[start : start + config.batch_size]
            inputs = tokenizer(batch, padding=True, truncation=True, max_length=config.max_length, return_tensors="pt")
            parts.append(model(**inputs.to(device)).logits.float().cpu())
    return torch.cat(parts).numpy()


def _alpha(student: Path) -> float | None:
    """What the student's run was distilled with, where its config.yaml lies beside it."""
    file = student.parent / "config.yaml"
    return OmegaConf.select(OmegaConf.load(file), "distill.alpha") if file.is_file() else None
