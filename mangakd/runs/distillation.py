"""A run from teacher to table: teacher (fine-tuned once) → its answers → student by distillation → scores → export → baseline
→ table.

From the command to the first forward of a live teacher lie three functions: `distillation` (here), `answers_of` (answers.py)
and `gather` (data/gather.py).
"""

import shutil
import time
from functools import partial

from mangakd.core import ranks
from mangakd.core.requires import Need
from mangakd.evaluation import table
from mangakd.evaluation.report.write import write_report
from mangakd.runs import results
from mangakd.runs.answers import Answers, Rows, answers_of, apart, student_answers, with_members
from mangakd.runs.fits import Fits
from mangakd.runs.recipe import Distilled, Recipe, distil, without_teacher
from mangakd.runs.run import Run
from mangakd.runs.scores import Metrics, member_scores, student_scores, teacher_scores
from mangakd.runs.summary import summary
from mangakd.teachers.base import TeacherProvider
from mangakd.training.loggers import RunLogger
from mangakd.training.wandb_run import keep_in_wandb


def distillation(run: Run) -> None:
    """Every rank trains; the first rank does what a single process can do."""
    started = time.perf_counter()
    print(summary(run), flush=True)
    hardware, splits = run.parts.hardware, run.material.splits
    teacher = run.material.teacher()
    own: Answers = {}
    members: dict[str, list[Rows]] = {}
    if ranks.is_first():
        teacher.prepare(hardware.device, Need(logits=True))
        asked = answers_of(
            partial(with_members, run.parts.task, teacher), splits, hardware, "teacher", hardware.precision
        )
        own, members = apart(asked)
    answers = {"teacher": ranks.share(own)}
    metrics = _teacher_metrics(run, answers["teacher"])
    recipe = _recipe(run, teacher, answers["teacher"])
    distilled = distil(recipe)
    metrics |= _fit_metrics(run, distilled)
    if ranks.is_first():
        metrics |= member_scores(run.parts.task.judge, run.models.head, members["test"], splits["test"].columns)
        answers["student"] = student_answers(run.parts.task, distilled.student, splits, hardware, "student")
        _finish_student(run, distilled, teacher, answers, metrics)
    if run.given.baseline:
        _train_baseline(run, recipe, distilled.steps, answers, metrics)
    if ranks.is_first():
        metrics["run/seconds"] = time.perf_counter() - started
        _finish(run, metrics)


def _teacher_metrics(run: Run, answers: Answers) -> Metrics:
    task, parameters = run.parts.task, run.models.teacher_parameters
    truth = {name: run.material.splits[name].columns for name in answers}
    sizes = {"teacher/params": parameters, "teacher/megabytes": parameters * 4 / 1e6}
    return teacher_scores(task.judge, run.models.head, task.monitor, answers, truth) | sizes


def _recipe(run: Run, teacher: TeacherProvider, answers: Answers) -> Recipe:
    given, parts, material = run.given, run.parts, run.material
    fits = Fits(
        parts.task, material.splits["validation"], answers["validation"], parts.optim, parts.hardware, given.seed,
        given.trainer, parts.save_every, given.resume, material.identity,
    )  # fmt: skip
    loggers = RunLogger(parts.loggers, given.settings(None)) if parts.loggers else None
    return Recipe(
        parts.stages, given.folder, fits, material.splits, material.students, material.stage_losses, teacher,
        material.stored_teacher, loggers,
    )  # fmt: skip


def _fit_metrics(run: Run, distilled: Distilled) -> Metrics:
    return {
        "train/samples_per_second": distilled.result.samples_per_second,
        "train/steps": distilled.steps,
        f"val/{run.parts.task.monitor}": distilled.result.score,
        "student/params": results.parameters(distilled.student),
    }


def _test_scores(run: Run, model: str, answers: dict[str, Answers], metrics: Metrics, prefix: str = "") -> Metrics:
    judge, truth = run.parts.task.judge, run.material.splits["test"].columns
    whole = metrics[f"teacher/test/{judge.main}"]
    return student_scores(
        judge, run.models.head, answers[model]["test"], truth, answers["teacher"]["test"], whole, prefix
    )


def _finish_student(
    run: Run, distilled: Distilled, teacher: TeacherProvider, answers: dict[str, Answers], metrics: Metrics
) -> None:
    """Before the baseline: a resumed run would train the baseline again, while it finds a finished student and its variants."""
    folder, parts, corpus = run.given.folder, run.parts, run.parts.corpus
    metrics |= _test_scores(run, "student", answers, metrics)
    results.write_predictions(folder, parts.task, run.models.head, corpus, run.material.splits, answers)
    paths = ", ".join(dict.fromkeys(member.path for member in parts.teacher.models))
    metrics["student/megabytes"] = results.write_student(
        folder, distilled.student, run.models.student_tokenizer, corpus, run.material.losses, metrics, task=parts.task.name,
        teacher=f"{teacher.spec.name} ({paths})", command=run.given.command, quantised=distilled.quantised,
    )  # fmt: skip
    results.write_metrics(folder, metrics)
    results.write_exports(folder, parts.exports, corpus.train["text"])


def _train_baseline(run: Run, recipe: Recipe, steps: int, answers: dict[str, Answers], metrics: Metrics) -> None:
    folder, splits = run.given.folder / "baseline", run.material.splits
    student = recipe.students.build()
    without_teacher(recipe.fits, student, splits["train"], folder, steps)
    if ranks.is_first():
        answers["baseline"] = student_answers(run.parts.task, student, splits, run.parts.hardware, "baseline")
        metrics |= _test_scores(run, "baseline", answers, metrics, "baseline/")
        results.write_predictions(run.given.folder, run.parts.task, run.models.head, run.parts.corpus, splits, answers)
        shutil.rmtree(folder)  # its checkpoints; the baseline was trained for its scores


def _finish(run: Run, metrics: Metrics) -> None:
    folder, judge, corpus = run.given.folder, run.parts.task.judge, run.parts.corpus
    results.write_metrics(folder, metrics)
    table.show(metrics, judge, f"{corpus.name}, test: {len(corpus.test)} rows")
    write_report(folder, judge, run.given.settings("gate"))
    keep_in_wandb(run.parts.loggers, metrics)
    print(f"student, config, metrics and report.html: {folder}")
