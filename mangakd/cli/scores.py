"""The scores in metrics.json: of the teacher, of its members, and of students beside it."""

import numpy as np
import torch

from mangakd.cli.setup import Setup
from mangakd.core.errors import UserError
from mangakd.data.gather import gather
from mangakd.data.loader import EvalBatches
from mangakd.teachers.base import TeacherProvider
from mangakd.teachers.ensemble import member_logits
from mangakd.training.callbacks.progress import progress

Metrics = dict[str, float]


def teacher_scores(setup: Setup, answers: dict[str, torch.Tensor]) -> Metrics:
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
    for name, chance in judge.chance(setup.splits["validation"].labels).items():
        score = judge.scores[name]
        perfect = 1.0 if score.higher else 0.0
        if score.gain(scores[name], chance) < 0.1 * score.gain(perfect, chance):
            raise UserError(
                f"the teacher is near chance: validation {name} {scores[name]:.3f}; a model that has learnt nothing has "
                f"{chance:.3f}. The teacher was not fine-tuned for this task (teacher.fit.mode=always), not long enough "
                "(teacher.fit.epochs, teacher.fit.lr), or its labels are in another order (teacher.labels)."
            )


def scores_of(setup: Setup, split: str, answers: torch.Tensor, teacher: torch.Tensor | None = None) -> Metrics:
    """Score → value on a split; with the teacher's answers also the scores against it."""
    truth = setup.splits[split].labels
    return setup.task.judge.values(answers.numpy(), truth, None if teacher is None else teacher.numpy())


def member_scores(setup: Setup, teacher: TeacherProvider) -> Metrics:
    """`members/test/…`: means over the members of an ensemble; {} for one teacher, and where no member's answers are kept."""
    split = setup.splits["test"]
    if teacher.members == 1:
        return {}
    with progress("members on test", len(split)) as advance:
        batches = EvalBatches(split, setup.hardware.eval_batch_size)
        logits = gather(
            lambda batch: member_logits(teacher(batch)), batches, setup.device, advance, setup.hardware.precision
        )
    if logits.shape[1] == 1:  # combine=logits mixes them at once
        return {}
    members = [scores_of(setup, "test", each) for each in logits.unbind(1)]
    common = [name for name in members[0] if all(name in scores for scores in members)]
    return {f"members/test/{name}": float(np.mean([scores[name] for scores in members])) for name in common}


def student_scores(setup: Setup, logits: torch.Tensor, teacher: torch.Tensor, prefix: str) -> Metrics:
    """On test, with the share of the teacher's main score that the student keeps."""
    judge = setup.task.judge
    scores = scores_of(setup, "test", logits, teacher)
    whole = scores_of(setup, "test", teacher)[judge.main]
    scores["retention"] = judge.scores[judge.main].retention(scores[judge.main], whole)
    return {f"{prefix}test/{name}": value for name, value in scores.items()}
