"""The scores in metrics.json: of the teacher, of its members, and of students beside it."""

from collections.abc import Mapping
from dataclasses import replace
from functools import partial

import numpy as np
from torch import Tensor

from mangakd.cli.setup import Setup
from mangakd.core.errors import UserError
from mangakd.core.outputs import Batch, Outputs
from mangakd.data.gather import gather_all
from mangakd.data.loader import EvalBatches
from mangakd.tasks.base import Task
from mangakd.teachers.base import TeacherProvider
from mangakd.teachers.ensemble import member_logits
from mangakd.training.callbacks.progress import progress

Metrics = dict[str, float]
Answers = Mapping[str, Tensor]  # as Task.ask gives them, for all rows of a split


def teacher_scores(setup: Setup, answers: Mapping[str, Answers]) -> Metrics:
    """Test scores of the teacher; raises UserError when it is near chance on validation."""
    monitor = setup.task.monitor
    validation, test = (scores_of(setup, name, answers[name]) for name in ("validation", "test"))
    check_above_chance(setup, validation)
    print(f"teacher: test {monitor} {test[monitor]:.4f}, validation {validation[monitor]:.4f}", flush=True)
    sizes = {"teacher/params": setup.teacher_parameters, "teacher/megabytes": setup.teacher_parameters * 4 / 1e6}
    return {f"teacher/test/{name}": value for name, value in test.items()} | sizes


def check_above_chance(setup: Setup, scores: Metrics) -> None:
    """Raises UserError for validation scores less than a tenth of the way from chance to perfect."""
    judge = setup.task.judge
    for name, chance in judge.chance(setup.head, setup.splits["validation"].columns).items():
        score = judge.scores[name]
        perfect = 1.0 if score.higher else 0.0
        if score.gain(scores[name], chance) < 0.1 * score.gain(perfect, chance):
            raise UserError(
                f"the teacher is near chance: validation {name} {scores[name]:.3f}; a model that has learnt nothing has "
                f"{chance:.3f}. The teacher was not fine-tuned for this task (teacher.fit.mode=always), not long enough "
                "(teacher.fit.epochs, teacher.fit.lr), or its labels are in another order (teacher.labels)."
            )


def scores_of(setup: Setup, split: str, answers: Answers, teacher: Answers | None = None) -> Metrics:
    """Score → value on a split; with the teacher's answers also the scores against it."""
    truth = setup.splits[split].columns
    return setup.task.judge.values(setup.head, arrays(answers), truth, None if teacher is None else arrays(teacher))


def arrays(answers: Answers) -> dict[str, np.ndarray]:
    return {name: each.numpy() for name, each in answers.items()}


def member_scores(setup: Setup, teacher: TeacherProvider) -> Metrics:
    """`members/test/…`: means over the members of an ensemble; {} for one teacher, and where no member's answers are kept."""
    split = setup.splits["test"]
    if teacher.members == 1:
        return {}
    with progress("members on test", len(split)) as advance:
        batches = EvalBatches(split, setup.hardware.eval_batch_size)
        ask = partial(_members, setup.task, teacher)
        answers = gather_all(ask, batches, setup.device, advance, setup.hardware.precision)
    if answers.keys() == {(0, name) for _, name in answers}:  # combine=logits mixes them at once
        return {}
    members = [
        scores_of(setup, "test", {name: each for (number, name), each in answers.items() if number == member})
        for member in range(teacher.members)
    ]
    common = [name for name in members[0] if all(name in scores for scores in members)]
    return {f"members/test/{name}": float(np.mean([scores[name] for scores in members])) for name in common}


def _members(task: Task, teacher: TeacherProvider, batch: Batch) -> dict[tuple[int, str], Tensor]:
    """(member, name) → what the task asks of it."""
    outputs = teacher(batch)
    logits = member_logits(outputs).unbind(1)
    each = [task.ask(partial(_as_one, outputs, own), batch) for own in logits]
    return {(number, name): answer for number, answers in enumerate(each) for name, answer in answers.items()}


def _as_one(outputs: Outputs, logits: Tensor, batch: Batch) -> Outputs:
    return replace(outputs, logits=logits, members=None)


def student_scores(setup: Setup, answers: Answers, teacher: Answers, prefix: str) -> Metrics:
    """On test, with the share of the teacher's main score that the student keeps."""
    judge = setup.task.judge
    scores = scores_of(setup, "test", answers, teacher)
    whole = scores_of(setup, "test", teacher)[judge.main]
    scores["retention"] = judge.scores[judge.main].retention(scores[judge.main], whole)
    return {f"{prefix}test/{name}": value for name, value in scores.items()}
