"""`python train.py` on two processes, started in every way there is: one run, one folder, one log, the same student.

Every start takes seconds, so the commands share one tiny world, and one run goes through all the trouble: it is
stopped by a signal, goes on by the printed command, loses a rank, goes on under srun, and ends as if nothing had been.
"""

import os
import random
import shlex
import subprocess
import sys
import time
from pathlib import Path

import pytest
import tiny
import torch
from conftest import LABELS, REPO, save_tiny
from safetensors.torch import load_file
from trouble import Trouble
from warm import Command

from mangakd.cli.app import explain
from mangakd.core.errors import UserError
from mangakd.training import launch
from mangakd.training.checkpoints import damage
from mangakd.training.fit import fit
from mangakd.training.hardware import Hardware

DDP = Hardware(accelerator="cpu", devices=2, strategy="ddp", batch_size=8)
LEFT = {
    "checkpoints", "command.txt", "config.yaml", "logs", "metrics.json", "predictions", "provenance.json",
    "provenance_parts.json", "report.html", "report.md", "student",
}  # fmt: skip
EPOCHS, EVERY = 4, 2  # 5 steps an epoch; a checkpoint every 2
TROUBLED = {"PYTHONPATH": str(REPO / "tests")}


@pytest.fixture(scope="module")
def keys(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    """Overrides of every run: a tiny teacher that knows the data, as it is the one who labelled it."""
    from transformers import AutoModelForSequenceClassification, AutoTokenizer

    base = tmp_path_factory.mktemp("launch")
    folder = save_tiny(base / "teacher", initializer_range=0.5)  # large enough for answers that differ
    teacher = AutoModelForSequenceClassification.from_pretrained(folder).eval()
    tokenizer = AutoTokenizer.from_pretrained(folder)
    words, draw = ("where", "is", "my", "order", "card", "late", "please", "when", "book", "volume"), random.Random(0)
    texts = [" ".join(draw.choices(words, k=draw.randint(2, 9))) for _ in range(96)]
    with torch.no_grad():
        answers = teacher(**tokenizer(texts, padding=True, return_tensors="pt")).logits.argmax(-1).tolist()
    rows = [f"{text},{LABELS[answer]}" for text, answer in zip(texts, answers, strict=True)]
    (base / "train.csv").write_text("text,label\n" + "\n".join(rows) + "\n")
    return [
        "hardware=cpu_ddp", "hardware.batch_size=8", "data=files", f"data.path={base / 'train.csv'}", "data.max_length=16",
        f"teacher.path={folder}", "student=teacher_layers", "student.layers=[2]", "losses=[hard_label,output]",
        "losses.hard_label._target_=trouble.Trouble", f"trainer.max_epochs={EPOCHS}", f"checkpoint.every_steps={EVERY}",
        f"paths.cache={base / 'cache'}",
    ]  # fmt: skip


def run(*words: str) -> subprocess.CompletedProcess[str]:
    """What a new interpreter did, from the repository's root."""
    env = {**os.environ, **TROUBLED}
    return subprocess.run([sys.executable, *words], capture_output=True, text=True, timeout=600, cwd=REPO, env=env)


def student(folder: Path) -> dict[str, torch.Tensor]:
    return load_file(folder / "student" / "model.safetensors")


def equal(left: Path, right: Path) -> bool:
    ours, theirs = student(left), student(right)
    return ours.keys() == theirs.keys() and all(ours[name].equal(theirs[name]) for name in theirs)


@pytest.fixture(scope="module")
def whole(keys: list[str], tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    """(folder of runs, what was printed) of a run under torchrun, in whose run folder's name is each rank's own clock."""
    base = tmp_path_factory.mktemp("torchrun")
    done = run(
        "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2", "train.py", *keys,
        f"hydra.run.dir={base}/${{now:%H-%M-%S-%f}}",
    )  # fmt: skip
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[:3000]
    return base, done.stdout


def test_torchrun_is_one_run(whole: tuple[Path, str]) -> None:
    base, printed = whole
    folders = list(base.iterdir())
    assert len(folders) == 1, "the other rank's folder is gone"
    assert {path.name for path in folders[0].iterdir()} == LEFT
    assert "16 rows = 2 devices (ddp) × 8" in printed
    assert printed.count("distil student: step") == EPOCHS
    assert printed.count("student, config, metrics and report.html:") == 1
    assert {"run.log", "rank1.log"} <= {path.name for path in (folders[0] / "logs").iterdir()}


def srun(rank: int, tasks: int = 2) -> dict[str, str]:
    return batch(tasks) | {
        "SLURM_STEP_ID": "0", "SLURM_STEP_NUM_TASKS": str(tasks), "SLURM_STEP_NODELIST": "localhost",
        "SLURM_PROCID": str(rank), "SLURM_LOCALID": str(rank), "SLURM_NODEID": "0",
    }  # fmt: skip


def batch(tasks: int = 2) -> dict[str, str]:
    """What an sbatch script, or a shell of salloc, has before srun."""
    return {
        "SLURM_JOB_ID": str(os.getpid()), "SLURM_NTASKS": str(tasks), "SLURM_NTASKS_PER_NODE": str(tasks), "SLURM_PROCID": "0",
        "SLURM_LOCALID": "0", "SLURM_NODEID": "0", "SLURM_NODELIST": "localhost", "SLURM_NNODES": "1",
    }  # fmt: skip


@pytest.mark.parametrize(
    ("found", "processes"),
    [({}, 1), (batch(), 1), (srun(0, tasks=1), 1), (srun(1), 2), (srun(1) | {"RANK": "3", "WORLD_SIZE": "4"}, 4)],
    ids=["nothing", "a shell of salloc", "srun --pty", "srun", "torchrun under srun"],
)
def test_who_started_this_process(found: dict[str, str], processes: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "environ", dict(found))
    assert launch.launcher_processes() == processes


def test_steps_of_a_job_on_one_node_have_ports_of_their_own(monkeypatch: pytest.MonkeyPatch) -> None:
    ports = []
    for step in ("0", "1"):
        monkeypatch.setattr(os, "environ", srun(0) | {"SLURM_STEP_ID": step})
        launch.launcher_processes()
        ports.append(os.environ["MASTER_PORT"])
    assert ports[0] != ports[1]


@pytest.mark.parametrize(
    ("found", "hardware", "message"),
    [
        (
            {"RANK": "0", "WORLD_SIZE": "2"},
            Hardware(),
            r"started 2 processes .* has 1 devices × 1 nodes\. Start 1, choose",
        ),
        ({"RANK": "0", "WORLD_SIZE": "3"}, DDP, r"started 3 processes .* has 2 devices × 1 nodes\. Start 2, choose"),
        ({}, Hardware(devices=2, nodes=2), r"torchrun --nnodes=2 --nproc-per-node=2"),
        ({"SUBMITIT_LOCAL_NTASKS": "2"}, DDP, r"hydra\.launcher\.tasks_per_node=2"),
    ],
    ids=["one device", "too many", "nodes without torchrun", "tasks of submitit's local executor"],
)
def test_processes_that_do_not_fit_the_profile(
    found: dict[str, str], hardware: Hardware, message: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "environ", dict(found))
    with pytest.raises(UserError, match=message):
        launch.join(hardware)


def test_a_submitit_job_of_two_processes(
    whole: tuple[Path, str], command: Command, keys: list[str], tmp_path: Path
) -> None:
    pytest.importorskip("hydra_plugins.hydra_submitit_launcher")
    launcher = ["-m", "hydra/launcher=submitit_local", f"hydra.sweep.dir={tmp_path}"]
    done = command("train.py", *launcher, "seed=0", *keys, **TROUBLED)
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[:3000]
    assert {path.name for path in tmp_path.iterdir()} == {".submitit", "0", "multirun.yaml", "report.html", "report.md"}
    assert {path.name for path in (tmp_path / "0").iterdir()} == LEFT
    # A sweep reads stored answers, rounded in other batches: alike, not bit-equal. (Key biases have no gradient but rounding.)
    ours, theirs = student(tmp_path / "0"), student(next(whole[0].iterdir()))
    apart = torch.cat([(ours[name] - value).abs().flatten() for name, value in theirs.items()])
    assert apart.mean() < 1e-5


def test_a_run_goes_through_a_signal_a_killed_rank_and_srun(
    whole: tuple[Path, str], command: Command, keys: list[str], tmp_path: Path
) -> None:
    last = tmp_path / "checkpoints" / "last.ckpt"
    stopped = command("train.py", *keys, f"hydra.run.dir={tmp_path}", **TROUBLED, TROUBLE="0:5:STOP")
    assert stopped.returncode == 143, stopped.stdout[-2000:] + stopped.stderr[-2000:]
    assert "Error" not in stopped.stderr
    assert stopped.stdout.count("stopping:") == 1
    assert 5 <= step(last) <= 6, "the step in hand, or the next: ranks agree on one"
    printed = next(line for line in stopped.stdout.splitlines() if line.startswith("  python "))
    _, script, *words = shlex.split(printed)

    killed = command(script, *words, **TROUBLED, TROUBLE="1:7:KILL")
    assert time.time() - last.stat().st_mtime < 300, (
        "the rank that is left does not wait for the other until gloo gives up"
    )
    assert killed.returncode == 1
    assert "error: rank 1 was killed by SIGKILL" in killed.stderr
    assert "Traceback" not in killed.stderr
    assert "resume=auto" in killed.stderr
    assert 5 + 7 - 1 - EVERY <= step(last) < 6 + 7

    tasks = [command.start(script, *words, **TROUBLED, **srun(rank)) for rank in (0, 1)]
    ended = [task.end() for task in tasks]
    said = [done.stdout + done.stderr for done in ended]
    assert [done.returncode for done in ended] == [0, 0], said
    assert "distil student" in said[0]
    assert "distil student" not in said[1]
    assert "other settings" not in said[0]
    assert {path.name for path in tmp_path.iterdir()} == LEFT
    assert equal(tmp_path, next(whole[0].iterdir()))


def step(checkpoint: Path) -> int:
    assert not damage(checkpoint)
    return int(torch.load(checkpoint, weights_only=False)["global_step"])


def trains(folder: Path) -> None:
    student = tiny.encoder(2)
    fit(student, tiny.bound(student, None, hard_label=Trouble()), None, tiny.plan(folder, hardware=DDP))


@pytest.mark.usefixtures("forked_ranks")
def test_the_error_of_the_rank_that_failed_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Not that of the other, which has lost the connection to it."""
    monkeypatch.setenv("TROUBLE", "1:3:RAISE")
    with pytest.raises(UserError, match=r"(?s)^rank 1: Traceback.*ValueError: only this rank's trouble$") as told:
        launch.start(trains, (tmp_path,), DDP, tmp_path, explain)
    assert "onnection" not in str(told.value)


JOB = """
import joblib, multiprocessing
from mangakd.cli.app import settle

def methods():
    before = multiprocessing.get_start_method()
    settle()
    return before, multiprocessing.get_start_method()

if __name__ == "__main__":
    print(*joblib.Parallel(n_jobs=2)([joblib.delayed(methods)()])[0])
"""


def test_jobs_of_joblib_can_start_processes() -> None:
    pytest.importorskip("joblib")
    before, after = run("-c", JOB).stdout.split()
    assert before == "loky", "joblib has mended it: settle() need not"
    assert after in ("fork", "forkserver", "spawn")
