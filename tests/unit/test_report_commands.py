"""scripts/report.py, gate.py, compare_runs.py and check_drift.py on made-up runs; latency; the words people type."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from hydra import compose, initialize_config_dir
from made_run import GATE, JUDGE, RESAMPLES, made, read
from omegaconf import DictConfig
from safetensors.torch import load_file, save_file
from warm import Command

from mangakd.cli import compare_runs, once
from mangakd.cli import gate as gate_command
from mangakd.cli import report as report_command
from mangakd.cli.once import hydra_ready
from mangakd.cli.words import keyed, under
from mangakd.core.errors import UserError
from mangakd.evaluation import drift
from mangakd.evaluation.report.measure import LATENCY, measure
from mangakd.evaluation.report.write import write_report

ROOT = Path(__file__).resolve().parents[2]


def composed(name: str, *overrides: str) -> DictConfig:
    with initialize_config_dir(str(ROOT / "conf"), version_base="1.3"):
        return compose(name, [*overrides])


def test_the_gate_as_typed(command: Command, tmp_path: Path) -> None:
    run = made(tmp_path / "it's a run")
    done = command("scripts/gate.py", run, f"resamples={RESAMPLES}", "gate.latency=null")
    assert done.returncode == 1, done.stderr
    assert "FAIL" in done.stdout and "failed: agreement" in done.stdout and "latency" not in done.stdout


OWN = """gate:
  agreement: {measure: agreement, tested: estimate, at_least: 0.1}
  calibration: null
"""


@pytest.mark.parametrize(
    ("typed", "expected"),
    [
        ([], {"agreement": 0.1, "calibration": None}),
        (["gate.agreement.at_least=0.3"], {"agreement": 0.3, "calibration": None}),
        (["gate.agreement=null"], {"agreement": None, "calibration": None}),
        (["~gate.agreement"], {"calibration": None}),
        (["gate.calibration.at_most=0.2"], {"agreement": 0.1, "calibration": 0.2}),
        (["gate.calibration.at_most=${seed}"], {"agreement": 0.1, "calibration": 0}),
        (["gate.size.at_most=9"], {"agreement": 0.1, "calibration": None, "size": 9}),
        (["gate=default", "gate.lift=null"], {"agreement": 0.95, "calibration": 0.05, "lift": None, "size": 100}),
    ],
)
def test_a_run_is_tested_by_its_own_gate(typed: list[str], expected: dict[str, float | None], tmp_path: Path) -> None:
    (tmp_path / "config.yaml").write_text(OWN)
    with hydra_ready():
        config = once.config_of("gate", *typed, folder=tmp_path)
        lines = report_command.gate_lines(config, tmp_path)
    limits = {name: line and line.get("at_least", line.get("at_most")) for name, line in lines.items()}
    assert {name: limits.get(name) for name in expected} == expected
    assert typed[:1] == ["gate=default"] or limits.keys() == expected.keys()


def test_commands(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run, other = made(tmp_path / "run"), made(tmp_path / "other")
    few = f"resamples={RESAMPLES}"
    report_command.run(composed("report", f"run={run}", few))
    assert (run / "report.html").is_file() and "not measured: latency" in capsys.readouterr().out
    easy = [f"gate.{name}=null" for name in ("agreement", "retention", "rare_classes", "calibration", "lift")]
    gate_command.run(composed("gate", f"run={run}", few, *easy))  # no line fails: no exit
    assert "1 of 2 lines pass; not measured: latency" in capsys.readouterr().out
    compare_runs.run(composed("compare_runs", f"runs=[{run},{other}]", few, f"out={tmp_path / 'both'}"))
    assert "| accuracy, points | +0.0 [+0.0, +0.0] |" in capsys.readouterr().out
    assert read(tmp_path, "both")[0].headings == ["Students on test", "Curves"]
    with pytest.raises(UserError, match="run=outputs"):
        gate_command.run(composed("gate"))


def test_check_drift(tmp_path: Path, tiny_teacher: Path, capsys: pytest.CaptureFixture[str]) -> None:
    from mangakd.cli import check_drift

    (tmp_path / "new.txt").write_text("where is my order\nrefund please\n")
    models = {"student": tiny_teacher, "teacher": tiny_teacher, "data": tmp_path / "new.txt"}
    typed = under([f"{key}={value}" for key, value in models.items()], "compare", tuple(models))
    history = f"history={tmp_path / 'drift.jsonl'}"
    check_drift.run(composed("check_drift", *typed, history))
    assert "agreement 100.0%" in capsys.readouterr().out
    with pytest.raises(SystemExit) as stop:
        check_drift.run(composed("check_drift", *typed, history, "limits.kl=-1"))
    assert stop.value.code == 1 and "lowered by 0.1" in capsys.readouterr().out
    assert len((tmp_path / "drift.jsonl").read_text().splitlines()) == 2 and read(tmp_path, "drift")[0].headings == [
        "Checks"
    ]
    with pytest.raises(UserError, match=r"data=.*there is no such file"):
        check_drift.run(composed("check_drift", *typed[:2], "compare.data=nowhere.txt"))


def test_drift_compares_labels_by_name(tmp_path: Path, tiny_teacher: Path) -> None:
    from mangakd.cli import check_drift

    turned = tmp_path / "turned"  # the same model with its outputs in another order
    shutil.copytree(tiny_teacher, turned)
    weights = load_file(turned / "model.safetensors")
    save_file(
        {n: w.flip(0) if n.startswith("classifier.") else w for n, w in weights.items()}, turned / "model.safetensors"
    )
    config = json.loads((turned / "config.json").read_text())
    names = list(config["id2label"].values())[::-1]
    config |= {"id2label": dict(enumerate(names)), "label2id": {name: i for i, name in enumerate(names)}}
    (turned / "config.json").write_text(json.dumps(config))
    (tmp_path / "new.txt").write_text("where is my order\nrefund please\n")
    models = [f"compare.student={tiny_teacher}", f"compare.teacher={turned}", f"compare.data={tmp_path / 'new.txt'}"]
    check_drift.run(composed("check_drift", *models, f"history={tmp_path / 'drift.jsonl'}"))
    check = json.loads((tmp_path / "drift.jsonl").read_text())
    assert check["agreement"] == 1.0 and check["kl"] == pytest.approx(0, abs=1e-9)


def test_latency_is_measured_where_the_student_is(tmp_path: Path, tiny_teacher: Path) -> None:
    from mangakd.cli.latency import latency

    run = made(tmp_path / "run")
    with pytest.raises(UserError, match="has no student"):
        latency(run)
    (run / "student").symlink_to(tiny_teacher)
    found = latency(run)
    assert 0 < found["p50_ms"] <= found["p95_ms"] and found["threads"] == 1
    (run / LATENCY).write_text(json.dumps(found))
    assert measure(run, JUDGE, RESAMPLES).gate["latency_ms"] == found["p50_ms"]
    write_report(run, JUDGE, GATE, RESAMPLES)
    assert f"median {found['p50_ms']:.1f} ms" in read(run)[2]


def test_words_become_keys() -> None:
    assert keyed(["a=1", "out/it's", "--help", "~gate.lift"], "run") == [
        "a=1",
        "--help",
        "~gate.lift",
        'run="out/it\'s"',
    ]
    assert keyed(["a", "b", "x=1"], "runs", many=True) == ["x=1", 'runs=["a","b"]']
    assert under(["student=a", "limits.kl=1"], "compare", ("student",)) == ["compare.student=a", "limits.kl=1"]


def test_drift(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    teacher = rng.normal(size=(50, 3)) * 3
    about = {"at": "now", "student": "s", "teacher": "t", "data": "d"}
    good = drift.compare(teacher, teacher, False, about, RESAMPLES, 0)
    bad = drift.compare(-teacher, teacher, False, about, RESAMPLES, 0)
    limits = drift.Limits()
    assert (good.kl, good.agreement, good.breaches(limits)) == (0.0, 1.0, [])
    assert len(bad.breaches(limits)) == 2
    file = tmp_path / "drift.jsonl"
    assert drift.append(file, good) == [good]
    checks = drift.append(file, bad)
    assert [check.kl for check in checks] == [good.kl, bad.kl]
    assert len(drift.sections(checks, limits)[0].blocks) == 3
    assert "distill.alpha=0.6" in drift.advice(0.7) and "lowered by 0.1" in drift.advice(None)
    file.write_text(file.read_text() + "{}\n")
    with pytest.raises(UserError, match="line 3"):
        drift.append(file, good)
