"""`logger=wandb` as W&B gets it: real offline runs of a tiny model, read back from their files."""

import json
import os
import struct
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from conftest import checked
from omegaconf import DictConfig
from warm import Command

from mangakd.core.errors import UserError
from mangakd.training.loggers import RunLogger
from mangakd.training.wandb_run import WandbRun, keep_in_wandb

wandb = pytest.importorskip("wandb")

Compose = Callable[..., DictConfig]
RunHere = Callable[[DictConfig, Path], None]
NOWHERE = "http://127.0.0.1:9"  # nothing listens there


@pytest.fixture(autouse=True)
def own_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """No account, settings or artifacts of whoever runs the tests."""
    for name in [name for name in os.environ if name.startswith("WANDB_")]:
        monkeypatch.delenv(name)
    for name in ("CONFIG_DIR", "DATA_DIR", "CACHE_DIR"):
        monkeypatch.setenv(f"WANDB_{name}", str(tmp_path / "home" / name))
    monkeypatch.setenv("NETRC", str(tmp_path / "netrc"))
    monkeypatch.setenv("WANDB_MODE", "offline")
    monkeypatch.setenv("WANDB_SILENT", "true")
    monkeypatch.setenv(
        "WANDB_CONSOLE", "off"
    )  # a run that fails to finish would go on reading the output of later tests
    wandb.teardown()
    yield
    wandb.teardown()


@dataclass
class Sent:
    """What one start of a run has left for W&B. files: artifact name → the paths in it."""

    run: Any = None
    config: dict[str, Any] = field(default_factory=dict)
    history: list[dict[str, Any]] = field(default_factory=list)
    summary: dict[str, Any] = field(default_factory=dict)
    artifacts: dict[str, Any] = field(default_factory=dict)
    step_of: dict[str, str] = field(default_factory=dict)
    exit_code: int | None = None

    @property
    def files(self) -> dict[str, set[str]]:
        return {name: {file.path for file in found.manifest.contents} for name, found in self.artifacts.items()}


def sent(folder: Path) -> list[Sent]:
    """All starts, in order."""
    wandb.teardown()  # its service writes the end of a file while finish() has returned
    return [read(file) for file in sorted(folder.glob("logs/wandb/*run-*/*.wandb"), key=lambda f: f.stat().st_mtime_ns)]


def read(file: Path) -> Sent:
    def values(items: Any) -> dict[str, Any]:
        return {"/".join(item.nested_key) or item.key: json.loads(item.value_json) for item in items}

    found = Sent()
    for record in records(file):
        kind = record.WhichOneof("record_type")
        if kind == "run":
            found.run = record.run
        elif kind == "config":
            found.config |= values(record.config.update)
        elif kind == "history":
            found.history.append(values(record.history.item))
        elif kind == "summary":
            found.summary |= values(record.summary.update)
        elif kind == "artifact":
            found.artifacts[record.artifact.name] = record.artifact
        elif kind == "metric":
            found.step_of[record.metric.name or record.metric.glob_name] = record.metric.step_metric
        elif kind == "exit":
            found.exit_code = record.exit.exit_code
    return found


def records(file: Path) -> Iterator[Any]:
    """A .wandb file: 7 bytes, then LevelDB's log format: blocks of 32 KiB, parts with checksum, length and kind."""
    from wandb.proto.wandb_internal_pb2 import Record

    data, at, parts = file.read_bytes(), 7, b""
    assert data.startswith(b":W&B")
    while at + 7 <= len(data):
        if 32768 - at % 32768 < 7:
            at += 32768 - at % 32768
            continue
        _, size, kind = struct.unpack("<IHB", data[at : at + 7])
        parts, at = parts + data[at + 7 : at + 7 + size], at + 7 + size
        if kind in (1, 4):  # whole, or the last part
            record = Record()
            record.ParseFromString(parts)
            parts = b""
            yield record


@pytest.fixture
def typed(small_run: list[str]) -> list[str]:
    return [*small_run, "logger=[wandb]", "trainer.max_epochs=2", "+trainer.log_every_n_steps=2"]


def test_a_run_has_config_curve_scores_report_and_student(
    typed: list[str], run_here: RunHere, compose: Compose, tmp_path: Path
) -> None:
    run_here(compose(*typed, "stages=two_stage", "logger=[csv,wandb]"), tmp_path / "run")
    (found,) = sent(tmp_path / "run")
    assert found.config["distill"]["temperature"] == 2.0 and found.config["data"]["path"].endswith("train.csv")
    csv = (tmp_path / "run" / "logs" / "metrics.csv").read_text().splitlines()
    steps = [row["step"] for row in found.history]
    assert steps == sorted(steps) and steps[-1] == max(
        int(line.split(",")[csv[0].split(",").index("step")]) for line in csv[1:]
    )
    assert [row["_step"] for row in found.history] == list(range(len(steps))) and found.step_of["*"] == "step"
    assert any("train/loss/output" in row for row in found.history)
    metrics = json.loads((tmp_path / "run" / "metrics.json").read_text())
    assert {name: found.summary[name] for name in metrics} == metrics
    report, student = f"report-{found.run.run_id}", f"student-{found.run.run_id}"
    assert found.files[report] == {"report.html", "report.md", "config.yaml", "metrics.json"}
    assert {"model.safetensors", "config.json", "tokenizer.json"} <= found.files[student]
    assert found.artifacts[student].type == "model"
    assert json.loads(found.artifacts[student].metadata)["test/kl"] == metrics["test/kl"]
    assert (found.run.project, found.run.run_group, found.exit_code) == ("mangakd", "", 0)


def test_one_key_keeps_the_student_here(typed: list[str], run_here: RunHere, compose: Compose, tmp_path: Path) -> None:
    run_here(compose(*typed, "logger.wandb.upload_student=false", "trainer.max_epochs=1"), tmp_path / "run")
    (found,) = sent(tmp_path / "run")
    assert [name.partition("-")[0] for name in found.artifacts] == ["report"]


def test_a_resumed_run_goes_on_in_the_same_wandb_run(
    typed: list[str], run_here: RunHere, compose: Compose, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def killed(*_: Any) -> None:
        raise MemoryError

    named = ["logger.wandb.name=mine", "logger.wandb.group=ours"]
    with monkeypatch.context() as patch, pytest.raises(MemoryError):
        patch.setattr("mangakd.training.run_module.RunModule.on_validation_epoch_end", killed)
        run_here(compose(*typed, *named, "checkpoint.every_steps=3"), tmp_path / "run")
    run_here(compose(*typed, "checkpoint.every_steps=3", "resume=auto"), tmp_path / "run")
    first, second = sent(tmp_path / "run")
    assert first.exit_code == 1 and second.exit_code == 0
    assert first.run.run_id == second.run.run_id == json.loads((tmp_path / "run/logs/wandb.json").read_text())["id"]
    assert second.run.resume and (second.run.display_name, second.run.run_group) == ("mine", "ours")
    assert 0 < second.history[0]["step"] <= first.history[-1]["step"]  # from the checkpoint on: taken, and told, again
    assert second.history[0]["_step"] > first.history[-1]["_step"]  # W&B's own count goes on: it drops nothing
    assert any("val/accuracy" in row for row in second.history)


def test_disabled_leaves_nothing(
    typed: list[str], run_here: RunHere, compose: Compose, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("WANDB_MODE", "disabled")
    monkeypatch.setattr(wandb, "init", None)
    run_here(compose(*typed, "trainer.max_epochs=1"), tmp_path / "run")
    assert (tmp_path / "run" / "metrics.json").is_file()
    assert not list((tmp_path / "run" / "logs").glob("wandb*"))


def test_online_without_a_key_is_told_before_training(
    base: list[str], compose: Compose, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("WANDB_MODE")
    with pytest.raises(UserError, match=r"no API key.*`wandb login`.*WANDB_API_KEY.*WANDB_MODE=offline"):
        checked(compose(*base, "logger=[wandb]"), tmp_path / "run")
    monkeypatch.setenv("WANDB_API_KEY", "short")
    with pytest.raises(UserError, match=r"online and WANDB_API_KEY invalid.*`wandb login`"):
        checked(compose(*base, "logger=[wandb]"), tmp_path / "run")
    monkeypatch.setenv("WANDB_API_KEY", "0" * 40)
    checked(compose(*base, "logger=[wandb]"), tmp_path / "run")
    checked(compose(*base, "logger=[wandb]", "logger.wandb.mode=offline"), tmp_path / "run")
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("override", "words"),
    [
        ("mode=ofline", "ofline must be one of online, offline, disabled"),
        ("project=a/b", "project=a/b cannot be the name"),
    ],
)
def test_wrong_settings_are_told(override: str, words: str, base: list[str], compose: Compose, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=words):
        checked(compose(*base, "logger=[wandb]", f"logger.wandb.{override}"), tmp_path / "run")


def test_an_unreachable_wandb_is_logged_offline(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    for name, value in {"MODE": "online", "BASE_URL": NOWHERE, "API_KEY": "0" * 40, "INIT_TIMEOUT": "1"}.items():
        monkeypatch.setenv(f"WANDB_{name}", value)
    wandb.teardown()
    run = WandbRun(str(tmp_path), "mangakd")
    run.log_metrics({"train/loss": 1.5}, 3)
    run.finalize("failed")
    (folder,) = tmp_path.glob("logs/wandb/offline-run-*")
    assert f"is logged offline. Upload it later with\n  wandb sync {folder}" in caplog.text
    wandb.teardown()
    found = read(next(folder.glob("*.wandb")))
    assert found.history[0]["train/loss"] == 1.5 and found.history[0]["step"] == 3


def test_a_failing_end_is_told_and_harms_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    run = WandbRun(str(tmp_path), "mangakd")
    run.log_metrics({"train/loss": 1.5}, 3)

    def timeout(*_: Any, **__: Any) -> None:
        raise TimeoutError("uploads take too long")

    with monkeypatch.context() as patch:
        patch.setattr(wandb.Artifact, "add_dir", timeout)
        keep_in_wandb([run], {"test/accuracy": 0.5})
    (folder,) = tmp_path.glob("logs/wandb/offline-run-*")
    assert "uploads take too long" in caplog.text and f"wandb sync --include-online {folder}" in caplog.text
    caplog.clear()
    run.log_metrics({"train/loss": 1.0}, 4)
    assert not caplog.records


def test_only_the_first_rank_talks_to_wandb(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("mangakd.core.ranks.rank", lambda: 1)
    monkeypatch.setenv("WANDB_MODE", "online")  # a node without a key is none of its business
    run = WandbRun(str(tmp_path), "mangakd", mode="online")
    curve = RunLogger([run], {"seed": 0})
    curve.log_metrics({"train/loss": 1.0}, 0)
    keep_in_wandb([run], {})
    assert not list(tmp_path.iterdir())


def test_the_runs_of_a_sweep_are_grouped_and_named(
    base: list[str], tiny_csv: Path, command: Command, tmp_path: Path
) -> None:
    typed = [
        *base, "hardware.batch_size=8", "logger=[wandb]", "trainer.max_epochs=1", "distill.temperature=1,2",
        "teacher.fit.mode=always", "teacher.fit.epochs=20", "teacher.fit.lr=3e-3", f"data.val_path={tiny_csv}",
        f"paths.cache={tmp_path / 'cache'}", f"hydra.sweep.dir={tmp_path / 'temperatures'}",
    ]  # fmt: skip
    done = command("train.py", "-m", *typed)
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    runs = [found for number in ("0", "1") for found in sent(tmp_path / "temperatures" / number)]
    assert [run.run.display_name for run in runs] == ["distill.temperature=1", "distill.temperature=2"]
    assert {(run.run.run_group, run.run.job_type, run.exit_code) for run in runs} == {("temperatures", "train", 0)}
    assert len({run.run.run_id for run in runs}) == 2
    assert all(run.files[f"student-{run.run.run_id}"] for run in runs)
