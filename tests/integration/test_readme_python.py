"""README's Python section, run as it stands."""

import re
from pathlib import Path

import pytest
from conftest import REPO, save_tiny
from transformers import AutoModelForSequenceClassification


def test_the_script_of_the_readme(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (script,) = re.findall(r"```python\n(.*?)```", (REPO / "README.md").read_text(encoding="utf-8"), re.DOTALL)
    save_tiny(tmp_path / "teacher")
    save_tiny(tmp_path / "student", num_hidden_layers=2)
    monkeypatch.chdir(tmp_path)
    exec(compile(script, "README.md", "exec"), {})
    assert AutoModelForSequenceClassification.from_pretrained(tmp_path / "distilled").config.num_hidden_layers == 2
