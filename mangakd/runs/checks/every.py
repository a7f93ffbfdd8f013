"""All checks of a run, in the order in which a reader would fix the problems.

A check takes the values that it needs and raises UserError. The values are read when the check is called, so one problem never
hides another that does not depend on it.
"""

from collections.abc import Callable, Iterator

from mangakd.evaluation import gate
from mangakd.models import lora
from mangakd.runs.checks import language, late, machine, models, on_policy, recipe, teacher
from mangakd.runs.fits import identity_of
from mangakd.runs.resume import checkpoint_of
from mangakd.runs.run import Run
from mangakd.runs.texts import sequence_texts, stage_rows
from mangakd.training import recompute
from mangakd.training.checkpoints import Identity
from mangakd.training.quantise import check as quantised

Check = Callable[[], object]


def every_check(run: Run) -> list[Check]:
    return [*_of_machine(run), *_of_data(run), *_of_teacher(run), *_of_student(run), *_of_recipe(run)]


def _of_machine(run: Run) -> Iterator[Check]:
    given, parts = run.given, run.parts
    yield lambda: machine.profile(parts.hardware, given.profile)
    yield lambda: machine.trainer(parts.hardware, given.trainer)
    yield lambda: machine.writable(given.folder, "hydra.run.dir")
    yield lambda: machine.writable(given.cache, "paths.cache")
    yield lambda: machine.run_folder(given.folder, given.resume)


def _of_data(run: Run) -> Iterator[Check]:
    parts = run.parts
    yield lambda: parts.task
    yield lambda: parts.optim
    yield lambda: parts.loggers
    yield lambda: parts.rows
    yield lambda: parts.corpus
    yield lambda: recipe.monitor(parts.task)
    yield lambda: gate.lines(run.given.settings("gate"), parts.task.judge)


def _of_teacher(run: Run) -> Iterator[Check]:
    parts, models = run.parts, run.models
    yield lambda: parts.teacher
    yield lambda: models.teacher_tokenizer
    yield lambda: teacher.weights(parts.teacher, lambda: parts.task.kind)
    yield lambda: teacher.smoothing(parts.teacher, lambda: models.head)
    yield lambda: _fine_tuned(run)
    yield lambda: teacher.store(parts.teacher, lambda: models.teacher_spec)
    yield lambda: models.teacher_spec
    yield lambda: parts.teacher.check(sequence_texts(parts.corpus, parts.task, parts.stages))


def _fine_tuned(run: Run) -> None:
    """The teacher's members; where a member will be fine-tuned, a resumed run must fine-tune it in the same way."""
    given, parts = run.given, run.parts
    new = teacher.members(parts.teacher, run.models.teacher_tokenizer, parts.task.kind, lambda: run.models.head)
    if new:
        file = checkpoint_of(given.folder, given.resume)
        teacher.same_fit(file, given.resume, parts.hardware.step, given.settings("teacher"), given.settings_of)


def _of_student(run: Run) -> Iterator[Check]:
    sizes = run.models
    yield lambda: sizes.student_tokenizer
    yield lambda: models.student(run.parts.student, sizes, run.parts.task.kind)
    yield lambda: recompute.check(run.parts.hardware.activation_checkpointing, sizes.student_shape)
    yield lambda: models.adapters(
        run.parts.student, lambda: sizes.student_shape, run.parts.task.kind, run.parts.hardware, run.parts.stages
    )
    yield lambda: models.stage_students(run.parts.stages, sizes, run.parts.task.kind, run.parts.hardware)
    yield lambda: models.lengths(run.given.max_length, {"teacher": sizes.teacher_shape, "student": sizes.student_shape})
    yield lambda: models.attention(
        run.parts.hardware.attention, {"teacher": sizes.teacher_shape, "student": sizes.student_shape}
    )
    yield lambda: language.lengths(
        run.given.max_length, run.parts.task, {"teacher": sizes.teacher_shape, "student": sizes.student_shape}
    )
    yield lambda: recipe.batches(run.parts.hardware, run.given.max_length)
    yield lambda: late.pairs(
        sizes.late, run.parts.task, {"teacher": sizes.teacher_shape, "student": sizes.student_shape}
    )


def _of_recipe(run: Run) -> Iterator[Check]:
    given, parts, sizes, material = run.given, run.parts, run.models, run.material
    yield lambda: language.vocabularies(parts.task, teacher=sizes.teacher_spec, student=sizes.student_spec)
    yield lambda: language.made_of_classifiers(parts.task, parts.teacher, parts.stages)
    yield lambda: language.exports(
        parts.exports, parts.task, lambda: sizes.student_config, lambda: sizes.student_tokenizer
    )
    yield lambda: material.losses
    yield lambda: recipe.stages(
        parts.stages, material.losses.callbacks, sizes.student_spec,
        {"unlabelled": len(parts.corpus.unlabelled) > 0, "augmented": parts.augment.copies > 0},
    )  # fmt: skip
    yield lambda: recipe.units(material.losses, parts.task)
    yield lambda: recipe.labels(
        parts.task, parts.corpus.train, material.losses.callbacks, given.baseline, parts.teacher.fit.mode
    )
    yield lambda: recipe.comparing(material.losses, parts.hardware)
    yield lambda: recipe.packing(material.losses.callbacks, lambda: sizes.head, parts.hardware.packing)
    yield lambda: machine.rates(parts.hardware, parts.optim, parts.stages)
    yield lambda: quantised(parts.stages, parts.hardware, len(parts.corpus.train))
    yield lambda: language.writing(parts.task, parts.hardware)
    yield lambda: on_policy.writes(parts.on_policy, parts.task)
    yield lambda: on_policy.teachers(parts.on_policy, parts.teacher, parts.stages)
    yield lambda: on_policy.losses(parts.on_policy, material.losses.callbacks, parts.stages)
    yield lambda: on_policy.devices(parts.on_policy, parts.hardware)
    yield lambda: on_policy.batches(parts.on_policy, parts.hardware)
    yield lambda: recipe.placement(parts.teacher, parts.hardware.teacher.placement)
    yield lambda: recipe.provided(
        parts.teacher, parts.stages, material.losses.callbacks, sizes.teacher_spec, sizes.student_spec
    )
    yield lambda: models.taps(
        parts.stages, material.losses.callbacks,
        {"teacher": sizes.teacher_shape, "student": sizes.student_shape},
        {"teacher": sizes.teacher_spec.layers, "student": sizes.student_spec.layers},
    )  # fmt: skip
    yield lambda: late.losses(sizes.late, parts.stages, material.losses.callbacks)
    yield lambda: late.stages(sizes.late, parts.stages, sizes.config_of)
    yield lambda: late.quantisers(sizes.late, parts.stages)
    yield lambda: recipe.resumed(
        checkpoint_of(given.folder, given.resume), parts.stages, parts.hardware, lambda: _first_fit(run)
    )
    yield lambda: _refused_texts(run)
    yield lambda: machine.disk(given.folder, sizes.student_shape, _learning(run))
    yield lambda: recipe.exports(parts.exports, parts.stages, parts.task)


def _refused_texts(run: Run) -> object:
    """Some texts are refused when they are tokenised (`Task.tokenised_early`). The run finds the tokens in the cache."""
    return run.material.splits if run.parts.task.tokenised_early else None


def _first_fit(run: Run) -> Identity:
    """What the first stage learns from. The teacher is not known before it is loaded."""
    stage = run.parts.stages[0]
    return identity_of(run.material.identity, None, stage.name, stage_rows(run.material.splits, stage))


def _learning(run: Run) -> int | None:
    """The parameters that learn beside frozen ones; None where all learn."""
    adapters, kind = run.parts.student.adapters, run.parts.task.kind
    return None if adapters is None else lora.learning(run.models.student_shape, kind, adapters)
