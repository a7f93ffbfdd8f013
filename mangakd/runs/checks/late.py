"""Preflight of late interaction: tasks without pairs, losses that compare tokens, stages that mix two kinds, quantisers.

late: student, teacher → its settings; None for a model that reads query and document at once.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from mangakd.core.errors import UserError
from mangakd.losses.base import LossCallback
from mangakd.models.late import Late, of_config, reads
from mangakd.models.load import positions
from mangakd.tasks.base import Task
from mangakd.training.stages import Stage

Both = Mapping[str, Late | None]


def pairs(late: Both, task: Task, shapes: Mapping[str, Any]) -> None:
    """A task whose rows are no pairs, and queries longer than the model has positions for. shapes: models on the meta device."""
    for side, settings in late.items():
        if settings is None:
            continue
        if not task.pairs:
            raise UserError(
                f"the {side} reads a query and a document apart (late interaction), and task={task.name} has no such pairs. Set "
                f"{side}.interaction=cross to take its encoder alone, or choose task=rerank."
            )
        most = positions(shapes[side])
        if most is not None and settings.query_length > most:
            raise UserError(
                f"query_length={settings.query_length} of the {side}'s late interaction, but it has positions for {most} tokens. "
                f"Set {side}.interaction={{query_length: {most}}} or less."
            )


def losses(late: Both, stages: Sequence[Stage], losses: Mapping[str, LossCallback]) -> None:
    """Losses that compare tokens of a pair with those of a document alone."""
    if late["student"] == late["teacher"]:
        return
    for stage in stages:
        for name, loss in stage.select(dict(losses)).items():
            if any(need.hidden or need.attention for need in (loss.requires.student, loss.requires.teacher)):
                raise UserError(
                    f"losses.{name} compares tokens, and student and teacher read other sequences: {_reads(late)}. Leave {name} "
                    "out of losses; losses on scores (listwise_kl, margin_mse, score_mse, …) fit."
                )


def stages(late: Both, stages: Sequence[Stage], config: Callable[[Mapping[str, Any], str], Any]) -> None:
    """Students and teachers of stages that read other sequences than the run. config: options, key → of such a student."""
    for stage in stages:
        key = stage.key("student")
        if stage.student is not None and (own := of_config(config(stage.student, key))) != late["student"]:
            raise UserError(
                f"{key} reads {reads(own)}, and the run's student {reads(late['student'])}: the texts are "
                "tokenised for one of them. Give both the same interaction."
            )
        if stage.teacher == "previous" and late["student"] != late["teacher"]:
            raise UserError(
                f"{stage.key('teacher')}=previous: the student of the stage before would read the teacher's tokens, and "
                f"{_reads(late)}. Give both the same interaction, or set it to run."
            )


def quantisers(late: Both, stages: Sequence[Stage]) -> None:
    """Quantisers of a student that makes token vectors: a trained model becomes an INT8 file without its linear layer."""
    for stage in stages:
        if late["student"] is not None and stage.quantise is not None:
            raise UserError(
                f"{stage.key('quantise')}={stage.quantise}: a student of late interaction is not trained with quantisers. Leave "
                "it out: export=[openvino,onnx] makes INT8 after training. Or set student.interaction=cross."
            )


def _reads(late: Both) -> str:
    return ", ".join(f"the {side} reads {reads(own)}" for side, own in late.items())
