"""`python train.py`: teacher, student, baseline, scores. docs/reference/run_folder.md lists what it leaves.

preflight → a process for each device → teacher (fine-tuned once) → its answers → student by distillation → scores →
export → baseline → table
"""

import contextlib
import json
import math
import shlex
import shutil
import time
from functools import partial
from pathlib import Path
from typing import Any

import torch
from hydra.core.hydra_config import HydraConfig
from hydra.core.utils import setup_globals
from omegaconf import DictConfig, OmegaConf

from mangakd.cli import finished, preflight, recipe, typed
from mangakd.cli.app import explain, register_resolvers
from mangakd.cli.logs import start_logging
from mangakd.cli.plan import planned
from mangakd.cli.scores import arrays, member_scores, student_scores, teacher_scores
from mangakd.cli.setup import Setup
from mangakd.cli.sweep import sweeping
from mangakd.core import ranks
from mangakd.core.errors import UserError
from mangakd.core.locks import waiting_lock
from mangakd.core.requires import Need
from mangakd.data.gather import gather_all
from mangakd.data.loader import EvalBatches
from mangakd.data.rows import inputs
from mangakd.evaluation import predictions, table
from mangakd.evaluation.predictions import Predictions
from mangakd.evaluation.report.export import FOLDER
from mangakd.evaluation.report.write import write_report
from mangakd.export.data import of_run
from mangakd.export.hf import model_card, save_student
from mangakd.models.encoder import Encoder
from mangakd.tasks.base import Model
from mangakd.teachers.base import TeacherProvider
from mangakd.training import launch
from mangakd.training.callbacks.export import export_student
from mangakd.training.callbacks.progress import progress
from mangakd.training.callbacks.save_last import Interrupted
from mangakd.training.hardware import Hardware
from mangakd.training.wandb_run import keep_in_wandb

Metrics = dict[str, float]
Answers = dict[str, dict[str, torch.Tensor]]  # split → what Task.ask gives, for all its rows


def run(config: DictConfig) -> float | None:
    """One run; returns the student's best validation score, by which sweepers choose. None for `validate` and `plan`."""
    setup = Setup(config, Path(HydraConfig.get().runtime.output_dir))
    if config.plan:
        start_logging(None)
        print(planned(setup))
        leave_no_folder(setup.folder)
        return None
    if (score := finished.score(setup)) is not None:
        return score
    try:
        joined = launch.join(setup.hardware) if several(config) or launch.launcher_processes() > 1 else False
    except UserError:
        leave_no_folder(setup.folder)
        raise
    own, setup.folder = setup.folder, ranks.share(setup.folder)  # one folder; each rank's clock gave it another name
    if own != setup.folder:
        leave_no_folder(own)
    if not checked(setup):
        return None
    if setup.hardware.world > 1 and not joined:
        # As plain values: the classes that plugins describe their settings with cannot be pickled.
        plain = OmegaConf.create(OmegaConf.to_container(HydraConfig.instance().cfg))
        launch.start(on_a_rank, (config, plain, setup.folder), setup.hardware, setup.folder, explain)
    else:
        uninterrupted(setup)
    metrics = json.loads((setup.folder / "metrics.json").read_text()) if ranks.is_first() else {}
    metrics = ranks.share(metrics)  # when the first rank has written them
    ranks.finish()
    return metrics[f"val/{setup.task.monitor}"]


def several(config: DictConfig) -> bool:
    """Whether the profile has more than one device; a wrong value is left for preflight to tell."""
    counts = (config.hardware.devices, config.hardware.nodes)
    return all(isinstance(count, int) for count in counts) and math.prod(counts) > 1


def checked(setup: Setup) -> bool:
    """Preflight, on the first rank. False where that is all that was asked for."""
    start_logging(None)
    problem = None
    if ranks.is_first():
        try:
            preflight.check(setup)
        except UserError as error:
            problem = error
        finally:
            if setup.config.validate or not (setup.folder / "config.yaml").exists():
                leave_no_folder(setup.folder)
    if ranks.share(problem is not None):
        raise problem or ranks.leave_after_first()
    if setup.config.validate and ranks.is_first():
        print(f"no problem found: {summary(setup)}")
    return not setup.config.validate


def leave_no_folder(folder: Path) -> None:
    """What trains nothing leaves no folder behind; one with files in it stays."""
    with contextlib.suppress(OSError):
        folder.rmdir()


def on_a_rank(config: DictConfig, hydra_config: Any, folder: Path) -> None:
    """The run in a process that was started for one device."""
    setup_globals()
    register_resolvers()
    HydraConfig.instance().cfg = hydra_config
    uninterrupted(Setup(config, folder))


def uninterrupted(setup: Setup) -> None:
    try:
        distillation(setup)
    except Interrupted as stop:
        again = shlex.join([*typed.command(), f"hydra.run.dir={setup.folder}", "resume=auto"])
        print(f"{stop}." if sweeping() else f"{stop}. Go on with:\n  {again}", flush=True)
        raise SystemExit(128 + stop.number) from None


def distillation(setup: Setup) -> None:
    """One run at a time in a folder: ranks whose launcher was killed may still be writing when the run is resumed."""
    start_logging(setup.folder)
    lock = waiting_lock(setup.folder / "logs" / "lock", "training in this folder")
    with lock if ranks.is_first() else contextlib.nullcontext():
        from_teacher_to_table(setup)


def from_teacher_to_table(setup: Setup) -> None:
    """Every rank trains; what one process can do is done by the first."""
    started = time.perf_counter()
    if ranks.is_first():
        OmegaConf.save(OmegaConf.create(setup.resolved()), setup.folder / "config.yaml")
        typed.keep(setup.folder)
    print(summary(setup), flush=True)
    teacher = setup.provider()
    answers = ranks.share(teacher_answers(setup, teacher) if ranks.is_first() else {})
    metrics = teacher_scores(setup, answers)
    found = recipe.distil(setup, teacher, answers["validation"])
    student, result = found.student, found.result
    metrics |= {"train/samples_per_second": result.samples_per_second, f"val/{setup.task.monitor}": result.score}
    metrics["train/steps"] = found.steps
    if ranks.is_first():
        said = {"teacher": answers, "student": student_answers(setup, student, "student")}
        metrics |= student_scores(setup, said["student"]["test"], answers["test"], "") | member_scores(setup, teacher)
        keep(setup, said)
        metrics["student/params"] = parameters(student)
        save(setup, student, teacher, metrics, found.quantised)
        write(setup, metrics)  # the baseline may be interrupted; the student is finished
        exported(setup)
    baseline = setup.build_student() if setup.config.baseline else None
    if baseline is not None:
        recipe.without_teacher(setup, baseline, answers["validation"], found.steps)
    if not ranks.is_first():
        return
    if baseline is not None:
        said["baseline"] = student_answers(setup, baseline, "baseline")
        metrics |= student_scores(setup, said["baseline"]["test"], answers["test"], "baseline/")
        keep(setup, said)
        shutil.rmtree(setup.folder / "baseline")  # its checkpoints; the scores are what it was for
    metrics["run/seconds"] = time.perf_counter() - started
    write(setup, metrics)
    table.show(metrics, setup.task.judge, f"{setup.corpus.name}, test: {len(setup.corpus.test)} rows")
    write_report(setup.folder, setup.task.judge, setup.resolved()["gate"])
    keep_in_wandb(setup.loggers, metrics)
    print(f"student, config, metrics and report.html: {setup.folder}")


def write(setup: Setup, metrics: Metrics) -> None:
    (setup.folder / "metrics.json").write_text(json.dumps(metrics, indent=2, sort_keys=True) + "\n")


def summary(setup: Setup) -> str:
    corpus = setup.corpus
    return (
        f"{corpus.name}: {len(corpus.train)} / {len(corpus.validation)} / {len(corpus.test)} rows, {_learnt(setup)}; "
        f"{setup.teacher_spec.sizes()} → {setup.student_spec.sizes()}; losses {', '.join(setup.losses.callbacks)}; "
        f"steps of {spread(setup.hardware)} in {arithmetic(setup)}"
    )


def _learnt(setup: Setup) -> str:
    """`3 labels`, or the head in words."""
    return f"{len(setup.head.names)} labels" if setup.head.kind == "labels" else str(setup.head)


def arithmetic(setup: Setup) -> str:
    """The precision, and why where the profile left it to the machine."""
    precision = setup.hardware.precision
    if setup.config.hardware.precision != "auto" or precision == "32-true":
        return precision
    return f"{precision} (this CPU has bf16 units; hardware.precision=32-true computes in fp32)"


def spread(hardware: Hardware) -> str:
    """`64 rows`, or `64 rows = 2 devices (ddp) × 32`."""
    parts = [f"{hardware.world} devices ({hardware.strategy})"] if hardware.world > 1 else []
    parts += [str(hardware.batch_size)] if parts or hardware.accumulate > 1 else []
    parts += [f"{hardware.accumulate} micro-batches"] if hardware.accumulate > 1 else []
    return f"{hardware.step_rows} rows" + (f" = {' × '.join(parts)}" if parts else "")


def teacher_answers(setup: Setup, teacher: TeacherProvider) -> Answers:
    teacher.prepare(setup.device, Need(logits=True))
    return answers_of(setup, "teacher", teacher, setup.hardware.precision)


def student_answers(setup: Setup, student: Encoder, title: str) -> Answers:
    student.to(setup.device).eval().require(Need(logits=True))
    answers = answers_of(setup, title, lambda batch: student(batch["student"]))
    student.cpu()
    return answers


def answers_of(setup: Setup, title: str, model: Model, precision: str = "32-true") -> Answers:
    """On validation and test, asked for once. A student answers in fp32, as its folder does."""
    answers = {}
    for name in ("validation", "test"):
        split = setup.splits[name]
        with progress(f"{title} on {name}", len(split)) as advance:
            batches = EvalBatches(split, setup.hardware.eval_batch_size)
            ask = partial(setup.task.ask, model)
            answers[name] = gather_all(ask, batches, setup.device, advance, precision)
    return answers


def keep(setup: Setup, said: dict[str, Answers]) -> None:
    """Predictions for the report. said: teacher, student, baseline → their answers."""
    facts, text = setup.task.facts(setup.splits["train"], setup.head), inputs(setup.task.columns)[0]
    for split in ("validation", "test"):
        answers = {name: arrays(each[split]) for name, each in said.items()}
        texts, truth = setup.corpus.splits[split][text], setup.splits[split].columns
        predictions.save(Predictions(setup.head, texts, truth, answers, facts), setup.folder, split)


def save(setup: Setup, student: Encoder, teacher: TeacherProvider, metrics: Metrics, quantised: Any) -> None:
    kind = "classifier" if setup.head.kind == "labels" else "model"
    title = f"{setup.task.name} {kind}, {parameters(student) / 1e6:.1f}M parameters"
    paths = ", ".join(dict.fromkeys(member.path for member in setup.teacher.models))
    data = f"{setup.corpus.name} ({len(setup.corpus.train)} rows)"
    card = model_card(title, f"{teacher.spec.name} ({paths})", data, setup.losses, metrics, shlex.join(typed.command()))
    save_student(student.model, setup.student_tokenizer, setup.folder / "student", card, quantised)
    metrics["student/megabytes"] = (setup.folder / "student" / "model.safetensors").stat().st_size / 1e6


def exported(setup: Setup) -> None:
    """What the callbacks of export=[…] make of the student's folder. Before the baseline: a resumed run would train that again,
    while variants that are made are found."""
    if setup.exports.callbacks:
        data, folder = of_run(setup.folder, setup.corpus.train["text"]), setup.folder
        export_student(setup.exports.callbacks, folder / "student", folder / FOLDER, data, setup.exports.options)


def parameters(model: Any) -> int:
    return sum(p.numel() for p in model.parameters())
