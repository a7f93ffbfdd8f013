"""Scores of a classifier, and of a student beside its teacher, as plain numbers: what a run logs and keeps in metrics.json.

Each is the value of the statistic that the report, the gate and sweeps resample (evaluation/statistics.py): one definition.
"""

import math

from torch import Tensor

from mangakd.evaluation import statistics
from mangakd.evaluation.statistics import Answers


def metrics(logits: Tensor, targets: Tensor, teacher: Tensor | None = None) -> dict[str, float]:
    """Score → value; a score that is not defined on these rows is left out.

    logits, teacher: (N, C). targets: (N) class ids, or (N, C) 0 and 1 for multi-label tasks. agreement and kl need a teacher.
    """
    truth = targets.cpu().numpy()
    student, *other = (Answers(side.double().cpu().numpy(), truth) for side in (logits, teacher) if side is not None)
    values = {name: statistic.value for name, statistic in statistics.scores(student, *other).items()}
    return {name: value for name, value in values.items() if not math.isnan(value)}
