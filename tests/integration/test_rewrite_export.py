"""`task=rewrite export=[onnx]` by the command: the run's own rows judge the variants, and the shipped one reads conversations."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from omegaconf import DictConfig
from test_rewrite import COUNTS, lines, t5
from transformers import AutoModelForSeq2SeqLM, AutoTokenizer
from warm import Command

from mangakd import runtime
from mangakd.core.errors import UserError
from mangakd.runtime.turns import Turns

for package in ("onnx", "onnxscript", "onnxruntime"):
    pytest.importorskip(package)
Compose = Callable[..., DictConfig]
RunHere = Callable[[DictConfig, Path], None]


@pytest.fixture
def typed(tmp_path: Path) -> list[str]:
    for i, (key, count) in enumerate(COUNTS.items()):
        (tmp_path / f"{key}.jsonl").write_text("\n".join(map(json.dumps, lines(i, count))) + "\n")
    return [
        "task=rewrite", *(f"data.{key}={tmp_path / f'{key}.jsonl'}" for key in COUNTS), f"teacher.path={t5(tmp_path / 't5')}",
        "teacher.fit={mode: always, epochs: 10, lr: 0.01}", "student.layers=[2,3,5]", "hardware=cpu", "task.generate=0",
        "hardware.precision=32-true", "hardware.batch_size=16", "hardware.accumulate=1", "trainer.max_epochs=2", "optim.lr=0.01",
        "data.max_length=40", "task.max_target_length=24", "export=[onnx]", "export.onnx.variants=[onnx_fp32]",
    ]  # fmt: skip


def test_a_run_exports_its_student(
    typed: list[str], compose: Compose, run_here: RunHere, command: Command, tmp_path: Path
) -> None:
    run_here(compose(*typed), tmp_path / "run")
    record = json.loads((tmp_path / "run" / "export" / "export.json").read_text())
    assert (record["score"], record["chosen"], record["kind"]) == ("exact_match", "onnx_fp32", "tokens")
    assert record["variants"]["onnx_fp32"]["agreement_student"] == 1 and record["test"]["agreement_student"] == 1
    assert (record["max_length"], record["max_new_tokens"]) == (40, 24)
    model = runtime.load(tmp_path / "run" / "export" / "best", threads=1)
    assert model.manifest.turns == Turns()
    rows = lines(2, COUNTS["test_path"])
    asked = [[*row["history"], row["utterance"]] for row in rows]  # type: ignore[misc]
    assert model.rewrite(asked) == [
        _by_transformers(tmp_path / "run" / "student", " ||| ".join(turns)) for turns in asked
    ]
    done = command(
        "scripts/export.py", f"student={tmp_path / 'run'}", "export=[onnx]", "export.onnx.variants=[onnx_fp32]"
    )
    assert done.returncode == 0 and "onnx_fp32 ships" in done.stdout, done.stderr
    again = json.loads((tmp_path / "run" / "export" / "export.json").read_text())
    assert again["rows"] == record["rows"] and again["max_new_tokens"] == 24


def _by_transformers(folder: Path, source: str) -> str:
    """Without a cache: that of transformers 5.5 fails where a T5's decoder has more layers than its encoder."""
    tokenizer, model = AutoTokenizer.from_pretrained(folder), AutoModelForSeq2SeqLM.from_pretrained(folder).eval()
    ids = tokenizer(source, return_tensors="pt").input_ids
    assert ids.shape[1] <= 40
    text: str = tokenizer.decode(
        model.generate(input_ids=ids, max_new_tokens=24, use_cache=False)[0], skip_special_tokens=True
    )
    return text.strip()


def test_variants_that_no_writer_has(typed: list[str], compose: Compose, run_here: RunHere, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="onnx_int8_static is no variant of a student that writes"):
        run_here(compose(*typed[:-1], "export.onnx.variants=[onnx_fp32,onnx_int8_static]"), tmp_path / "run")
    assert not (tmp_path / "run" / "student").exists()
