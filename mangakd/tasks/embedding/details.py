"""The report's section on fewer dimensions: the student's prefixes beside the teacher, cut and rotated by a PCA."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from mangakd.evaluation.bootstrap import Statistic
from mangakd.evaluation.judge import Arrays, Details
from mangakd.evaluation.predictions import Predictions
from mangakd.evaluation.report.blocks import Section, Table, Value
from mangakd.evaluation.report.measure import RunResult
from mangakd.evaluation.report.sections import cell
from mangakd.tasks.embedding import scores

CUT = ("spearman", "ndcg@10", "recall@10")  # of the scores, those that are also computed for fewer dimensions
PCA = "_pca_{}"


class EmbeddingDetails(Details):
    """dims: sizes to cut to. vectors: (answers, truth, size) → what has the scores of a model.

    The PCA is fitted on the teacher's vectors of the validation rows, where they are given, and centred.
    """

    def __init__(
        self, dims: Sequence[int], test: Predictions, validation: Predictions | None, vectors: Callable[..., Any]
    ) -> None:
        self._dims = dims
        self.statistics = _of_pca(dims, test, validation, vectors) if dims and validation is not None else {}

    def sections(self, result: RunResult) -> list[Section]:
        if not self._dims:
            return []
        rows: list[list[str | Value]] = []
        for name in CUT:
            about = result.judge.scores[name]
            for size in self._dims:
                keys = [
                    ("student", f"{name}_{size}"),
                    ("teacher", f"{name}_{size}"),
                    ("teacher", f"{name}{PCA.format(size)}"),
                ]
                if keys[0] in result.scores:
                    cells = [cell(result.scores.get(key), about.format) for key in keys]
                    rows.append([about.title, str(size), *cells])
        note = (
            "The first numbers of a vector, normalised again. The teacher's are cut, too, or first turned into the main "
            "directions of its vectors of the validation rows (PCA)."
        )
        return [
            Section(
                "Fewer dimensions", [note, Table(["", "dimensions", "student", "teacher, cut", "teacher, PCA"], rows)]
            )
        ]


def _of_pca(
    dims: Sequence[int], test: Predictions, validation: Predictions, vectors: Callable[..., Any]
) -> Mapping[tuple[str, str], Statistic]:
    teacher_vectors = np.concatenate([*_filled(validation.answers["teacher"])])
    if len(teacher_vectors) <= max(dims):
        return {}
    centre, directions = scores.main_directions(teacher_vectors, max(dims))
    rotated = {name: (scores.unit(each) - centre) @ directions for name, each in test.answers["teacher"].items()}
    return {
        ("teacher", f"{name}{PCA.format(size)}"): statistic
        for size in dims
        for name, statistic in vectors(rotated, test.truth, size).scores().items()
        if name in CUT
    }


def _filled(answers: Arrays) -> list[np.ndarray]:
    """Vectors of length 1, without the zeros of rows that have no positive."""
    return [scores.unit(each)[np.abs(each).any(1)] for each in answers.values()]
