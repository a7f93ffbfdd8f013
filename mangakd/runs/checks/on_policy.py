"""Preflight of batches that the student writes itself: distill.lmbda above 0."""

from collections.abc import Mapping, Sequence

from mangakd.core.errors import UserError
from mangakd.losses.base import LossCallback
from mangakd.tasks.base import Task
from mangakd.teachers.options import TeacherOptions
from mangakd.training.hardware import Hardware
from mangakd.training.on_policy import OnPolicy
from mangakd.training.stages import Stage


def writes(options: OnPolicy, task: Task) -> None:
    """Tasks whose targets are no texts."""
    if options.share and type(task).author is Task.author:
        raise UserError(
            f"distill.lmbda={options.share}: the student would write its own targets, which task={task.name} does not have it "
            "do. Set distill.lmbda=0."
        )


def teachers(options: OnPolicy, teacher: TeacherOptions, stages: Sequence[Stage]) -> None:
    """Teachers that have answered before the student writes."""
    if not options.share:
        return
    stored = [f"{stage.key('teacher')}=stored" for stage in stages if stage.teacher == "stored"]
    if not teacher.reads_new_texts:
        stored.insert(0, f"teacher={type(teacher).__name__.lower()}")
    if stored:
        raise UserError(
            f"distill.lmbda={options.share}: the student writes new texts at every step, and {stored[0]} has the answers to the "
            "given texts alone. Use a teacher that is asked while the student is trained (teacher=local), or distill.lmbda=0."
        )


def losses(options: OnPolicy, losses: Mapping[str, LossCallback], stages: Sequence[Stage]) -> None:
    """Losses that would learn from the student's own text without a teacher."""
    if not options.share:
        return
    for stage in stages:
        alone = [name for name, loss in stage.select(dict(losses)).items() if not loss.needs_teacher]
        if alone:
            raise UserError(
                f"distill.lmbda={options.share}: losses.{alone[0]} learns from the targets alone, which would be the student's "
                f"own text. Leave losses.{alone[0]} out, give the teacher a share (distill.alpha), or set distill.lmbda=0."
            )


def devices(options: OnPolicy, hardware: Hardware) -> None:
    """Students in shards: each rank writes another number of tokens, and every step of a shard needs all ranks."""
    if options.share and hardware.strategy == "fsdp":
        raise UserError(
            f"distill.lmbda={options.share} needs a student that is whole on each device: hardware.strategy=fsdp spreads it over "
            "all of them. Choose a profile with hardware.strategy=ddp or one device, or distill.lmbda=0."
        )


def batches(options: OnPolicy, hardware: Hardware) -> None:
    """Batches that are full before the student writes."""
    if options.share and (most := hardware.tokens_per_batch) is not None:
        raise UserError(
            f"distill.lmbda={options.share}: hardware.tokens_per_batch={most} fills batches with the given texts, and those that "
            "the student writes in their place may be longer. Use hardware.tokens_per_batch=null and hardware.batch_size, or "
            "distill.lmbda=0."
        )
