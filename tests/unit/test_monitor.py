"""`mangakd monitor`: the table and the plots of a rollout's log, and the drift check on the texts that it kept."""

import json
import sys
from pathlib import Path

import pytest
from hydra import compose, initialize_config_dir

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "runtime"))

from rollout_rules import Clock, quick

from mangakd.cli import monitor
from mangakd.cli.console import COMMANDS
from mangakd.core.errors import UserError
from mangakd.evaluation import rollout
from mangakd.evaluation.wilson import wilson
from mangakd.runtime.rollout.rollout import Rollout

ROOT = Path(__file__).resolve().parents[2]


def run(*words: str) -> None:
    with initialize_config_dir(str(ROOT / "conf"), version_base="1.3"):
        monitor.run(compose("monitor", COMMANDS["monitor"].translate([*words])))


def played(tmp_path: Path, texts: str | None = None) -> Path:
    """A rollout of an hour: 25 % → 100 %, a restart, and a rollback for errors."""
    settings, clock = quick(tmp_path, texts=texts), Clock()
    one = Rollout(settings, "student", clock)
    for minute in range(60):
        clock.now += 60
        if minute == 30:
            one.journal.close()
            one = Rollout(settings, "student", clock)
        for i in range(4):
            one.answer("incumbent", 0.02, error=False)
            one.answer("student", 0.001, error=minute > 50)
            one.compare((4 * minute + i) % 20 != 0)
        one.tick()
    one.journal.close()
    return tmp_path / "rollout.jsonl"


def test_the_table_and_the_plots(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    log = played(tmp_path)
    run(str(log))
    out = capsys.readouterr().out
    assert "rolled back; the student answers 0% of the questions, restarts: 1" in out
    decisions = [line for line in out.splitlines() if line.startswith("| 20")]
    assert [line.split(" | ")[1:3] for line in decisions] == [
        ["raise", "25% → 100%"], ["complete", "100% → 100%"], ["roll back", "100% → 0%"],
    ]  # fmt: skip
    assert [line.split(" | ")[3] for line in decisions] == ["8.0", "8.0", "45.0"]  # 32 answers at 4 a minute
    page = log.with_suffix(".html").read_text()
    assert page.count("<svg") == 4 and log.with_suffix(".md").is_file() and "Agreement with the incumbent" in page


def test_the_counts_of_the_spans_are_those_of_the_log(tmp_path: Path) -> None:
    lines = rollout.read(played(tmp_path))
    spans = rollout.spans(lines)
    assert len(spans) <= rollout.SPANS
    assert sum(span.counts["incumbent"] for span in spans) == 240
    decisions = [line for line in lines if line["event"] == "decision"]
    ends = [line["counts"]["student_errors"] for line in (*decisions, lines[-1])]
    assert sum(span.counts["student_errors"] for span in spans) == sum(ends)
    assert spans[0].ms["student"] == {"p50": 1.0, "p95": 1.0}


def test_steps_hold_their_last_counts(tmp_path: Path) -> None:
    lines = rollout.read(played(tmp_path))
    rows = rollout.steps(lines).rows
    assert [row[0] for row in rows] == ["25%", "100%", "0%"]
    assert sum(int(str(row[2]).replace(",", "")) for row in rows) == 240


def test_a_log_that_ends_with_a_decision_shows_its_phase(tmp_path: Path) -> None:
    """The line of a decision has the phase before it."""
    one = Rollout(quick(tmp_path), "student", Clock())
    for _ in range(2):
        one.answer("student", 0.001, error=True)
    lines = rollout.read(tmp_path / "rollout.jsonl")
    assert [(line["event"], line["phase"]) for line in lines] == [("start", "running"), ("decision", "running")]
    assert rollout.state(lines).endswith(": rolled back; the student answers 0% of the questions.")


def test_a_step_that_outgrows_the_last_one_before_its_first_line_is_counted_whole(tmp_path: Path) -> None:
    """32 questions raise the share, and 50 follow before the next line. New rules begin a step, too: 60 more."""
    clock = Clock()
    one = Rollout(quick(tmp_path), "student", clock)
    clock.now += 60
    for count, name in ((12, "compare"), (32, "answer"), (50, "answer")):
        for _ in range(count):
            one.compare(True) if name == "compare" else one.answer("student", 0.001, error=False)
    assert one.share == 1
    one.close()
    other = Rollout(quick(tmp_path, steps=(0.5, 1.0)), "student", clock)
    for _ in range(60):
        other.answer("student", 0.001, error=False)
    other.close()
    lines = rollout.read(tmp_path / "rollout.jsonl")
    assert [line["counts"]["student"] for line in lines] == [0, 32, 50, 0, 60]
    assert sum(span.counts["student"] for span in rollout.spans(lines)) == 142


def test_drift_on_the_kept_texts(tmp_path: Path, tiny_teacher: Path, capsys: pytest.CaptureFixture[str]) -> None:
    texts = tmp_path / "texts.jsonl"
    texts.write_text("".join(json.dumps({"text": f"where is order {i}", "agreed": True}) + "\n" for i in range(4)))
    log = played(tmp_path, str(texts))
    run(str(log), f"student={tiny_teacher}", f"teacher={tiny_teacher}", f"history={tmp_path / 'drift.jsonl'}")
    assert "4 texts: KL 0.000" in capsys.readouterr().out


def test_mistakes(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="log is not set"):
        run()
    with pytest.raises(UserError, match="is no file"):
        run(str(tmp_path / "nowhere.jsonl"))
    (tmp_path / "other.jsonl").write_text('{"event": "x"}\n')
    with pytest.raises(UserError, match="is no log of a rollout"):
        run(str(tmp_path / "other.jsonl"))
    with pytest.raises(UserError, match="the rollout kept no texts"):
        run(str(played(tmp_path)), "student=a", "teacher=b")


def test_wilson_by_hand() -> None:
    """8 of 10: (0.8 + 0.19207 ± 1.96 · √(0.016 + 0.0096)) / 1.38415 = [0.490, 0.943]."""
    assert wilson(8, 10) == (pytest.approx(0.4902, abs=1e-4), pytest.approx(0.9433, abs=1e-4))
    assert wilson(10, 10)[1] == pytest.approx(1) and wilson(0, 10)[0] == pytest.approx(0)


def test_figures_have_the_limits_of_the_rules_and_minutes(tmp_path: Path) -> None:
    """quick: 0.9 expected, hold 0.2 and rollback 0.5 below it; an hour in which a line is written each minute."""
    lines = rollout.read(played(tmp_path))
    spans = rollout.spans(lines)
    assert spans[-1].minute == pytest.approx(60) and spans[0].minute == pytest.approx(1)
    agreement = rollout.figures(spans, lines[0]["rules"])[1].numbers
    assert {str(row[0]): row[2] for row in agreement.rows[1:]} == {
        "expected": "90.0%", "hold": "70.0%", "roll back": "40.0%",
    }  # fmt: skip
