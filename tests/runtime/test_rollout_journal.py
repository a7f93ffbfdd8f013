"""What survives a kill: decisions always, counts since the last write not; and files that cannot be used are refused by name."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from rollout_rules import Clock, quick

from mangakd.core.errors import UserError
from mangakd.runtime.rollout.journal import read_lines
from mangakd.runtime.rollout.rollout import Rollout
from mangakd.runtime.rollout.settings import Settings


def killed(rollout: Rollout) -> None:
    """As a SIGKILL: nothing is written any more, and the lock ends."""
    rollout.journal.close()


def events(settings: Settings) -> list[str]:
    return [line.get("decision", line["event"]) for line in read_lines(Path(settings.log))]


def held(settings: Settings) -> Rollout:
    rollout = Rollout(settings, "student", Clock())
    for _ in range(4):
        rollout.compare(False)
    return rollout


def test_a_decision_survives_and_late_counts_do_not(tmp_path: Path) -> None:
    settings = quick(tmp_path)
    rollout = held(settings)
    rollout.compare(True)
    rollout.tick()
    rollout.compare(True)  # not written
    killed(rollout)
    again = Rollout(settings, "student", Clock())
    assert (again.plan.phase, again.plan.decisions, again.plan.counts["compared"]) == ("held", 1, 5)
    assert events(settings) == ["start", "hold", "counts", "restart"]
    line = read_lines(tmp_path / "rollout.jsonl")[1]
    assert (line["from"], line["to"], line["number"], line["tests"]["quality"]["failures"]) == (0.25, 0.25, 1, 4)


def test_a_kill_between_state_and_log_loses_nothing(tmp_path: Path) -> None:
    settings = quick(tmp_path)
    killed(held(settings))
    log = tmp_path / "rollout.jsonl"
    lines = log.read_bytes().splitlines(keepends=True)
    log.write_bytes(b"".join(lines[:-1]) + lines[-1][:50])  # the decision's line was cut off
    again = Rollout(settings, "student", Clock())
    assert again.plan.phase == "held" and events(settings) == ["start", "hold", "restart"]


def test_a_kill_before_the_state_s_rename_leaves_the_last_state(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = quick(tmp_path)
    rollout = held(settings)
    monkeypatch.setattr(os, "replace", lambda *_: (_ for _ in ()).throw(SystemExit("killed")))
    with pytest.raises(SystemExit):
        for _ in range(9):
            rollout.compare(False)
    monkeypatch.undo()
    killed(rollout)
    assert Rollout(settings, "student", Clock()).plan.phase == "held"


def test_a_full_disk_stops_a_raise_and_no_rollback(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    rollout, clock = Rollout(quick(tmp_path), "student", Clock()), Clock()
    rollout._clock = clock
    monkeypatch.setattr(rollout.journal, "write", lambda *_, **__: (_ for _ in ()).throw(OSError("full")))
    clock.now += 100
    for _ in range(40):
        rollout.answer("student", 0.01, error=False)
        rollout.compare(True)
    assert rollout.share == 0.25 and rollout.plan.phase == "running"
    monkeypatch.undo()
    rollout.tick()
    assert rollout.share == 0.25  # it tries again after `every`
    clock.now += 11
    rollout.tick()
    assert rollout.share == 1.0
    monkeypatch.setattr(rollout.journal, "write", lambda *_, **__: (_ for _ in ()).throw(OSError("full")))
    for _ in range(5):
        rollout.answer("student", 0.01, error=True)
    assert rollout.share == 0


def test_other_rules_go_on_where_the_share_was(tmp_path: Path) -> None:
    killed(held(quick(tmp_path)))
    again = Rollout(quick(tmp_path, steps=(0.1, 0.5)), "student", Clock())
    assert (again.plan.phase, again.share) == ("running", 0.1) and events(again.settings)[-1] == "new rules"


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"student": "other"}, "rollout of another student"),
        ({"mode": "shadow"}, "rollout of another mode"),
    ],
)
def test_a_log_belongs_to_one_student(change: dict[str, str], message: str, tmp_path: Path) -> None:
    killed(held(quick(tmp_path)))
    shadow = {"mode": "shadow", "steps": (0.0,)} if "mode" in change else {}
    with pytest.raises(UserError, match=message):
        Rollout(quick(tmp_path, **shadow), change.get("student", "student"), Clock())


def test_files_that_cannot_be_used(tmp_path: Path) -> None:
    settings, state = quick(tmp_path), tmp_path / "rollout.state.json"
    killed(held(settings))
    content = json.loads(state.read_text())
    state.write_text(json.dumps({**content, "phase": "flying"}))
    with pytest.raises(UserError, match="is damaged"):
        Rollout(settings, "student", Clock())
    state.write_text(json.dumps({**content, "format": 2}))
    with pytest.raises(UserError, match=r"is no state of a rollout that this version reads \(format 2, not 1\)"):
        Rollout(settings, "student", Clock())
    state.write_text("{")
    with pytest.raises(UserError, match="is no state of a rollout"):
        Rollout(settings, "student", Clock())
    state.unlink()
    with pytest.raises(UserError, match=r"rollout.state.json is missing"):
        Rollout(settings, "student", Clock())
    (tmp_path / "file").touch()
    with pytest.raises(UserError, match="cannot be written"):
        Rollout(quick(tmp_path, log=str(tmp_path / "file" / "x.jsonl")), "student", Clock())


def test_one_process_has_a_log(tmp_path: Path) -> None:
    program = (
        "import sys, pathlib; from mangakd.runtime.rollout.journal import Journal; j = Journal(sys.argv[1]);"
        "print('has', flush=True); sys.stdin.read()"
    )
    log = str(tmp_path / "rollout.jsonl")
    command = [sys.executable, "-c", program, log]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as other:
        assert other.stdout is not None and other.stdout.readline() == b"has\n"
        with pytest.raises(UserError, match="belongs to another process"):
            Rollout(quick(tmp_path), "student", Clock())
        other.kill()
    Rollout(quick(tmp_path), "student", Clock())
