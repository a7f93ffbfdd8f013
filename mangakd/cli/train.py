"""`python train.py`: teacher, student, baseline, scores. What it leaves is listed in README.md.

preflight → teacher (fine-tuned once) → its answers → student by distillation → scores → baseline → table
"""

import contextlib
import copy
import json
import shlex
import shutil
import time
from pathlib import Path
from typing import Any

import torch
from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig, OmegaConf

from mangakd.cli import preflight
from mangakd.cli.logs import start_logging
from mangakd.cli.setup import Setup, progress
from mangakd.core.errors import UserError
from mangakd.core.requires import Need
from mangakd.data.gather import gather
from mangakd.data.loader import EvalBatches
from mangakd.evaluation import table
from mangakd.export.hf import model_card, save_student
from mangakd.losses.hard_label import HardLabelLoss
from mangakd.losses.loss_set import LossSet
from mangakd.models.encoder import Encoder
from mangakd.teachers.base import TeacherProvider
from mangakd.training.callbacks.interrupt import Interrupted
from mangakd.training.fit import Fit, FitResult, fit

Metrics = dict[str, float]


def run(config: DictConfig) -> float | None:
    """One run; returns the student's best validation score, which sweepers maximise."""
    setup = Setup(config, Path(HydraConfig.get().runtime.output_dir))
    try:
        return distillation(setup)
    except Interrupted as stop:
        again = shlex.join([*command(), f"hydra.run.dir={setup.folder}", "resume=auto"])
        print(f"{stop}. Go on with:\n  {again}", flush=True)
        raise SystemExit(128 + stop.number) from None


def distillation(setup: Setup) -> float | None:
    """From preflight to the table; None for `validate=true`."""
    config = setup.config
    start_logging(None)
    try:
        preflight.check(setup)
    finally:
        if config.validate or not (setup.folder / "config.yaml").exists():
            with contextlib.suppress(OSError):  # a check alone leaves no folder behind; one with files in it stays
                setup.folder.rmdir()
    if config.validate:
        print(f"no problem found: {summary(setup)}")
        return None
    start_logging(setup.folder)
    OmegaConf.save(OmegaConf.create(setup.resolved()), setup.folder / "config.yaml")
    started = time.perf_counter()
    print(summary(setup), flush=True)
    teacher = setup.teacher.provider(setup.context)
    answers = teacher_answers(setup, teacher)
    metrics = teacher_scores(setup, answers)
    student = built_student(setup)
    untrained = copy.deepcopy(student) if config.baseline else None
    result = distil(setup, student, teacher, answers["validation"])
    metrics |= student_scores(setup, student, answers["test"], "")
    metrics |= {"train/samples_per_second": result.samples_per_second, f"val/{setup.task.monitor}": result.score}
    metrics["student/params"] = parameters(student)
    save(setup, student, teacher, metrics)
    if untrained is not None:
        write(setup, metrics)  # the baseline may be interrupted; the student is finished
        without_teacher(setup, untrained, answers["validation"])
        metrics |= student_scores(setup, untrained, answers["test"], "baseline/")
        shutil.rmtree(setup.folder / "baseline")  # its checkpoints; the scores are what it was for
    metrics["run/seconds"] = time.perf_counter() - started
    write(setup, metrics)
    table.show(metrics, f"{setup.corpus.name}, test: {len(setup.corpus.test)} rows")
    print(f"student, config and metrics: {setup.folder}")
    return result.score


def write(setup: Setup, metrics: Metrics) -> None:
    (setup.folder / "metrics.json").write_text(json.dumps(metrics, indent=2, sort_keys=True) + "\n")


def summary(setup: Setup) -> str:
    corpus = setup.corpus
    return (
        f"{corpus.name}: {len(corpus.train)} / {len(corpus.validation)} / {len(corpus.test)} rows, {len(corpus.labels)} labels; "
        f"{setup.teacher_spec.sizes()} → {setup.student_spec.sizes()}; losses {', '.join(setup.losses.callbacks)}"
    )


def teacher_answers(setup: Setup, teacher: TeacherProvider) -> dict[str, torch.Tensor]:
    """The teacher's logits (N, C) on validation and test, asked for once."""
    device = setup.hardware.device
    teacher.prepare(device, Need(logits=True))
    answers = {}
    for name in ("validation", "test"):
        split = setup.splits[name]
        with progress(f"teacher on {name}", len(split)) as advance:
            batches = EvalBatches(split, setup.hardware.eval_batch_size)
            answers[name] = gather(lambda batch: teacher(batch).logits, batches, device, advance)
    return answers


def teacher_scores(setup: Setup, answers: dict[str, torch.Tensor]) -> Metrics:
    """Test scores of the teacher; raises UserError when it is near chance on validation."""
    task, splits = setup.task, setup.splits
    score = task.metrics(answers["validation"], torch.from_numpy(splits["validation"].labels))[task.monitor]
    chance = task.chance(splits["validation"].labels)
    if score < chance + 0.1 * (1 - chance):
        raise UserError(
            f"the teacher is near chance: validation {task.monitor} {score:.3f}, always saying the commonest label gives "
            f"{chance:.3f}. It was not fine-tuned for this task (teacher.fit.mode=always), not long enough "
            "(teacher.fit.epochs, teacher.fit.lr), or its labels are in another order (teacher.labels)."
        )
    scores = task.metrics(answers["test"], torch.from_numpy(splits["test"].labels))
    print(f"teacher: test {task.monitor} {scores[task.monitor]:.4f}, validation {score:.4f}", flush=True)
    sizes = {"teacher/params": setup.teacher_parameters, "teacher/megabytes": setup.teacher_parameters * 4 / 1e6}
    return {f"teacher/test/{name}": value for name, value in scores.items()} | sizes


def built_student(setup: Setup) -> Encoder:
    source = setup.load_teacher(setup.teacher.models[0])
    torch.manual_seed(setup.config.seed)  # the student's random weights, however the teacher was come by
    return setup.student.build(source, setup.student_tokenizer, setup.corpus.labels, setup.task.problem)


def distil(setup: Setup, student: Encoder, teacher: TeacherProvider, reference: torch.Tensor) -> FitResult:
    planned = plan(setup, "distil student", setup.folder, reference)
    if setup.config.resume not in (False, "auto"):
        planned.resume = Path(setup.config.resume)
    planned.loggers = setup.loggers
    for logger in planned.loggers:
        logger.log_hyperparams(setup.resolved())
    return fit(student, setup.losses, teacher, planned)


def without_teacher(setup: Setup, student: Encoder, reference: torch.Tensor) -> FitResult:
    """The same student, budget and seed, hard labels only."""
    losses = LossSet({"hard_label": HardLabelLoss()})
    losses.bind(student.spec, None)
    return fit(student, losses, None, plan(setup, "baseline without KD", setup.folder / "baseline", reference))


def plan(setup: Setup, title: str, folder: Path, reference: torch.Tensor) -> Fit:
    """`resume=auto` goes on from the folder's last checkpoint, if there is one."""
    last = folder / "checkpoints" / "last.ckpt"
    return Fit(
        title, folder, setup.task, setup.splits["train"], setup.splits["validation"], setup.optim, setup.hardware,
        setup.config.seed, dict(setup.config.trainer), reference,
        resume=last if setup.config.resume == "auto" and last.is_file() else None,
    )  # fmt: skip


def student_scores(setup: Setup, student: Encoder, teacher: torch.Tensor, prefix: str) -> Metrics:
    split, device = setup.splits["test"], setup.hardware.device
    student.to(device).eval().require(Need(logits=True))
    with progress(f"{prefix.rstrip('/') or 'student'} on test", len(split)) as advance:
        batches = EvalBatches(split, setup.hardware.eval_batch_size)
        logits = gather(lambda batch: student(batch["student"]).logits, batches, device, advance)
    student.cpu()
    scores = setup.task.metrics(logits, torch.from_numpy(split.labels), teacher)
    reference = setup.task.metrics(teacher, torch.from_numpy(split.labels))
    scores["retention"] = scores[setup.task.monitor] / max(reference[setup.task.monitor], 1e-9)
    return {f"{prefix}test/{name}": value for name, value in scores.items()}


def save(setup: Setup, student: Encoder, teacher: TeacherProvider, metrics: Metrics) -> None:
    title = f"{setup.task.name} classifier, {parameters(student) / 1e6:.1f}M parameters"
    paths = ", ".join(dict.fromkeys(member.path for member in setup.teacher.models))
    data = f"{setup.corpus.name} ({len(setup.corpus.train)} rows)"
    card = model_card(title, f"{teacher.spec.name} ({paths})", data, setup.losses, metrics, shlex.join(command()))
    save_student(student, setup.student_tokenizer, setup.folder / "student", card)
    metrics["student/megabytes"] = (setup.folder / "student" / "model.safetensors").stat().st_size / 1e6


def command() -> list[str]:
    """What was typed, without the keys that say where a run lives."""
    typed = HydraConfig.get().overrides.task
    return ["python", "train.py", *(word for word in typed if not word.startswith("resume="))]


def parameters(model: Any) -> int:
    return sum(p.numel() for p in model.parameters())
