"""A run from teacher to table: teacher (fine-tuned once) → its answers → student by distillation → scores → export → baseline
→ table.

From the command to the first forward of a live teacher lie three functions: `distillation` (here), `answers_of` (answers.py)
and `gather_all` (data/gather.py).
"""

import shutil
import time
from collections.abc import Mapping
from dataclasses import replace

from mangakd.core import ranks
from mangakd.core.requires import Need
from mangakd.evaluation import table
from mangakd.evaluation.report.write import write_report
from mangakd.models.encoder import Encoder
from mangakd.runs import provenance, results
from mangakd.runs.answers import Answers, Rows, answers_of, apart, student_answers, with_members
from mangakd.runs.fits import Fits
from mangakd.runs.mined import with_mined
from mangakd.runs.recipe import Distilled, Recipe, distil, without_teacher
from mangakd.runs.run import Run
from mangakd.runs.scores import Metrics, Scorer
from mangakd.runs.summary import summary
from mangakd.teachers.base import TeacherProvider
from mangakd.training.loggers import RunLogger
from mangakd.training.wandb_run import keep_in_wandb

BASELINE = "baseline"  # its name in answers, and the folder of its checkpoints
ADAPTER = "adapter"  # the folder of a student's adapters, beside the merged student
UNTRAINED = "untrained student"


def distillation(run: Run) -> None:
    """Every rank trains; the first rank does what a single process can do."""
    start = time.perf_counter()
    print(summary(run), flush=True)
    task, hardware, splits = run.parts.task, run.parts.hardware, run.material.splits
    teacher = run.material.teacher()
    if ranks.is_first():
        provenance.write_inputs(run, teacher)
    answers: dict[str, Answers] = {"teacher": {}}
    members: dict[str, list[Rows]] = {}
    if ranks.is_first():
        teacher.prepare(hardware.device, Need(answer=True))
        both = answers_of(lambda b: with_members(task, teacher(b), b), splits, hardware, "teacher", hardware.precision)
        answers["teacher"], members = apart(both)
        answers["teacher"]["test"] |= run.material.generations.add("teacher", _writers(run, teacher))
    answers["teacher"] = ranks.share(answers["teacher"])
    scorer = Scorer(task.judge, teacher.spec.head, {name: splits[name].columns for name in answers["teacher"]})
    metrics = scorer.teacher(answers["teacher"], task.monitor, run.material.losses.needs_teacher)
    metrics |= results.teacher_sizes(run.models.teacher_parameters) | results.calibration(teacher)
    recipe = _recipe(run, teacher, answers["teacher"]["validation"])
    distilled = distil(recipe)
    untrained = recipe.students.untrained() if task.shows_untrained else None
    beside = _beside(run, teacher)
    if ranks.is_first():
        recipe.students.save_adapter(distilled.student, run.given.folder / ADAPTER, recipe.stages[-1].student)
        finished = recipe.students.finish(distilled.student, recipe.stages[-1].student)
        distilled = replace(distilled, student=finished)
        references = _references(run, untrained, beside)
        answers |= references
        for name, each in references.items():
            metrics |= scorer.reference(name, each)
        answers["student"] = student_answers(task, distilled.student, splits, hardware, "student", beside)
        answers["student"]["test"] |= run.material.generations.add("student", [distilled.student])
        metrics |= distilled.metrics(task.monitor) | scorer.members(members["test"])
        metrics |= scorer.student(answers["student"], answers["teacher"], metrics)
        _write(run, distilled, teacher.spec.name, answers, metrics)
    if run.given.baseline:
        baseline = recipe.students.build()
        without_teacher(recipe.fits, baseline, recipe.baseline_rows, run.given.folder / BASELINE, distilled.steps)
        if ranks.is_first():
            baseline = recipe.students.finish(baseline)
            answers[BASELINE] = student_answers(task, baseline, splits, hardware, BASELINE, beside)
            answers[BASELINE]["test"] |= run.material.generations.add(BASELINE, [baseline])
            metrics |= scorer.student(answers[BASELINE], answers["teacher"], metrics, "baseline/")
    if ranks.is_first():
        metrics["run/seconds"] = time.perf_counter() - start
        _finish(run, answers, metrics)


def _beside(run: Run, teacher: TeacherProvider) -> TeacherProvider | None:
    """The teacher for tasks that compare the models while both answer. The first rank asks it alone, which a teacher in shards
    cannot answer: it is read again."""
    if not run.parts.task.compares:
        return None
    sharded = run.parts.hardware.teacher.placement == "sharded"
    return run.material.provider() if sharded else teacher


def _writers(run: Run, teacher: TeacherProvider) -> list[Encoder]:
    """The teacher's models that write texts. Where its texts are scored with the rows, the model of a stored teacher is read for
    them, unless the profile keeps no teacher in memory."""
    if teacher.encoders or not run.material.generations.of_rows or run.parts.hardware.teacher.placement == "cached":
        return teacher.encoders
    return [run.material.members.read(member) for member in run.parts.teacher.models]


def _references(run: Run, untrained: Encoder | None, teacher: TeacherProvider | None) -> dict[str, Answers]:
    """Name → answers of what the tables show beside the models."""
    task, splits, hardware = run.parts.task, run.material.splits, run.parts.hardware
    references: dict[str, Answers] = {}
    for split in ("validation", "test"):
        for name, each in task.references(run.parts.corpus.splits[split], splits[split]).items():
            references.setdefault(name, {})[split] = each
    if untrained is not None:
        references[UNTRAINED] = student_answers(task, untrained, splits, hardware, UNTRAINED, teacher)
    return references


def _recipe(run: Run, teacher: TeacherProvider, reference: Rows) -> Recipe:
    given, parts, material = run.given, run.parts, run.material
    fits = Fits(
        parts.task, material.splits["validation"], reference, parts.optim, parts.hardware, given.seed,
        given.trainer, parts.save_every, given.resume, material.identity, material.own_texts,
        material.validation_texts,
    )  # fmt: skip
    loggers = RunLogger(parts.loggers, given.settings(None)) if parts.loggers else None
    train = with_mined(
        parts.task, parts.corpus.train, material.splits["train"], teacher, parts.hardware, given.cache, material.digest
    )
    return Recipe(
        parts.stages, given.folder, fits, material.splits, train, material.students, material.stage_losses, teacher,
        material.stored_teacher, loggers,
    )  # fmt: skip


def _write(run: Run, distilled: Distilled, teacher: str, answers: Mapping[str, Answers], metrics: Metrics) -> None:
    """The student's results, before the baseline: a resumed run trains the baseline again and finds a finished student.

    teacher: its name. Adds the sizes of the student to metrics.
    """
    folder, parts, corpus = run.given.folder, run.parts, run.parts.corpus
    _write_predictions(run, answers)
    paths = ", ".join(dict.fromkeys(member.path for member in parts.teacher.models)) or parts.teacher.path
    metrics["student/params"] = results.parameters(distilled.student)
    metrics["student/megabytes"] = results.write_student(
        folder, distilled.student, run.models.student_tokenizer, corpus, run.material.losses, metrics, task=parts.task,
        max_length=run.given.max_length, teacher=f"{teacher} ({paths})", command=run.given.command, quantised=distilled.quantised,
    )  # fmt: skip
    results.write_metrics(folder, metrics)
    results.write_exports(folder, parts.exports, parts.task, corpus, run.given.max_length)


def _write_predictions(run: Run, answers: Mapping[str, Answers]) -> None:
    parts, material = run.parts, run.material
    results.write_predictions(
        run.given.folder,
        parts.task,
        run.models.head,
        parts.corpus,
        material.splits,
        answers,
        material.generations.lists,
    )


def _finish(run: Run, answers: Mapping[str, Answers], metrics: Metrics) -> None:
    """The table, the report, and what loggers take at the end."""
    folder, task, corpus = run.given.folder, run.parts.task, run.parts.corpus
    if BASELINE in answers:
        _write_predictions(run, answers)
        shutil.rmtree(folder / BASELINE)  # its checkpoints; the baseline was trained for its scores
    results.write_metrics(folder, metrics)
    provenance.write_outputs(folder)
    table.show(metrics, task.judge, f"{corpus.name}, test: {len(corpus.test)} rows")
    write_report(folder, task.judge, run.given.settings("gate"))
    keep_in_wandb(run.parts.loggers, metrics)
    print(f"student, config, metrics and report.html: {folder}")
