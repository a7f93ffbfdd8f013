"""`EnsembleOptions`: a teacher of several members, which are models or, for heads of vectors, files of vectors."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property

from mangakd.core.errors import UserError
from mangakd.core.requires import Need
from mangakd.core.spec import Head, Kind, ModelSpec
from mangakd.data.sequence_texts import SequenceTexts
from mangakd.data.vectors import is_file_of_vectors
from mangakd.teachers.base import TeacherProvider
from mangakd.teachers.local import LocalTeacher
from mangakd.teachers.options import Member, TeacherContext, TeacherOptions
from mangakd.teachers.vectors import Vectors

CONCATENATED = "concatenated"
COMBINE = ("probabilities", "logits", "standardised", CONCATENATED)


@dataclass(kw_only=True)
class EnsembleOptions(TeacherOptions):
    """paths: the members, or None for `path` once per seed. weights: M numbers, None (equal) or `validation`."""

    paths: Sequence[str] | None = None
    seeds: Sequence[int] = (0,)
    weights: Sequence[float] | str | None = None
    combine: str = "probabilities"

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.combine not in COMBINE:
            raise UserError(f"teacher.combine={self.combine!r}; known: {', '.join(COMBINE)}.")
        if isinstance(self.weights, str) and self.weights != "validation":
            raise UserError(f"teacher.weights={self.weights!r}; give one number for each member, null, or validation.")

    @property
    def members(self) -> list[Member]:
        """Models and files, in the order of the weights."""
        if not self.seeds or (self.paths is not None and not self.paths):
            raise UserError(
                "the teacher has no members; give teacher.seeds=[0,1,2] or teacher.paths=[folder_a,folder_b]."
            )
        if self.paths is None:
            return [Member(self.path, int(seed), self.reads) for seed in self.seeds]
        return [Member(path, int(self.seeds[0]), self.reads) for path in self.paths]

    @property
    def models(self) -> list[Member]:
        return [member for member in self.members if member.path not in self.files]

    @cached_property
    def files(self) -> dict[str, Vectors]:
        """Path → the vectors in it, of the members that are no models."""
        return {member.path: Vectors(path=member.path) for member in self.members if is_file_of_vectors(member.path)}

    def gives(self, spec: ModelSpec) -> Need:
        return Need(answer=True)

    def head(self, task: Head, models: Sequence[Head]) -> Head:
        check_combinable(task.kind, self.combine, len(self.members) > 1)
        files = [self.files[member.path].head(task, []) for member in self.members if member.path in self.files]
        if self.combine != CONCATENATED:
            return super().head(task, [*models, *files])
        return replace(task, outputs=sum(head.outputs for head in (*models, *files)))

    def check(self, texts: Mapping[str, SequenceTexts]) -> None:
        for file in self.files.values():
            file.check(texts)

    def providers(self, context: TeacherContext) -> list[TeacherProvider]:
        """Of each member."""
        return [
            self.files[member.path].provider(context)
            if member.path in self.files
            else LocalTeacher(context.load(member), context.head)
            for member in self.members
        ]


def check_combinable(kind: Kind, combine: str, several: bool) -> None:
    """Raises UserError for vectors of several members that are not concatenated, and for other answers that would be.

    Each member has directions of its own, so that a mean of their vectors means nothing.
    """
    if combine == CONCATENATED and kind != "vector":
        raise UserError(
            f"teacher.combine={CONCATENATED} is for vectors, and the task's head is of kind {kind}: use probabilities."
        )
    if combine != CONCATENATED and kind == "vector" and several:
        raise UserError(
            f"teacher.combine={combine} takes a mean of vectors, and vectors of several teachers lie in different spaces. Put "
            f"them side by side: teacher.combine={CONCATENATED}. Or give one teacher: teacher=local."
        )
