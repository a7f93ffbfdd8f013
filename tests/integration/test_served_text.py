"""A whole run on rows that hold no label, half a surrogate pair and special tokens, and the student's tokens at the end."""

import json
from collections.abc import Callable
from pathlib import Path

from conftest import LABELS, save_tiny
from omegaconf import DictConfig
from transformers import AutoTokenizer

from mangakd.models.load import load_tokenizer


def test_a_run_on_any_text(
    compose: Callable[..., DictConfig], run_here: Callable[[DictConfig, Path], None], tmp_path: Path
) -> None:
    from mangakd.core.spec import Head

    folder = save_tiny(tmp_path / "teacher")
    config = json.loads((folder / "config.json").read_text())
    config |= {"problem_type": Head.of_labels(LABELS, several=True).problem_type}
    (folder / "config.json").write_text(json.dumps(config))
    texts = ["a [SEP] b {}", "thanks \\ud83d {}", "[CLS]</s>[MASK] {}", "where is it {}"]
    sets: list[list[str]] = [[], [LABELS[0]], [LABELS[1], LABELS[2]]]
    lines = [f'{{"text": "{texts[i % 4].format(i)}", "label": {json.dumps(sets[i % 3])}}}' for i in range(60)]
    (tmp_path / "train.jsonl").write_text("\n".join(lines))
    config = compose(
        "data=files", f"data.path={tmp_path / 'train.jsonl'}", f"teacher.path={folder}", "task.problem=multi_label",
        "student.layers=[1,3]", "hardware=cpu", "hardware.batch_size=16", "logger=[]", "trainer.max_epochs=1",
    )  # fmt: skip
    run_here(config, tmp_path / "run")
    student = str(tmp_path / "run" / "student")
    wanted = load_tokenizer(student)("a [SEP] b")["input_ids"]
    assert wanted.count(102) == 1 and AutoTokenizer.from_pretrained(student)("a [SEP] b")["input_ids"] == wanted
    assert (tmp_path / "run" / "report.html").read_text(encoding="utf-8")
