"""`Models`: tokenizers, configs and sizes of teacher and student. Folders and headers are read, weights are not."""

import copy
import logging
from collections.abc import Mapping
from typing import Any

import torch

from mangakd.core.errors import UserError
from mangakd.core.spec import Head, ModelSpec
from mangakd.models import heads, load
from mangakd.models.late import AS_IT_IS, Late, of_config, reads
from mangakd.models.reserved import differ_in_reserved
from mangakd.runs.lazy import lazy
from mangakd.runs.parts import Parts
from mangakd.students.build import Student

log = logging.getLogger(__name__)


class Models:
    """parts: teacher and student say which models; task and corpus say which head.

    shape: a model on the meta device, its modules and sizes without weights. spec: the sizes, with the task's head.
    """

    def __init__(self, parts: Parts) -> None:
        self._parts = parts

    @lazy
    def teacher_tokenizer(self) -> Any:
        paths, kind = dict.fromkeys(member.path for member in self._parts.teacher.models), self._parts.task.kind
        if not paths:
            return load.load_tokenizer(self.lender, "student.path", kind)
        tokenizers = [load.load_tokenizer(path, kind=kind) for path in paths]
        if len({load.vocabulary_digest(tokenizer) for tokenizer in tokenizers}) > 1:
            raise UserError("the members of the teacher read with different tokenizers; teacher.paths must share one.")
        return tokenizers[0]

    @property
    def lender(self) -> str:
        """The model whose config and tokenizer stand for the teacher's. Raises UserError where there is none."""
        teacher, student = self._parts.teacher, self._parts.student
        path = teacher.models[0].path if teacher.models else student.path
        if path is None:
            raise UserError(
                f"teacher={type(teacher).__name__.lower()} has no model that a student of layers or sizes could start from: set "
                "student.path to a folder, a hub id, or `embedded`."
            )
        return path

    @lazy
    def student_tokenizer(self) -> Any:
        """Of the student's folder, unless a language model's differs from the teacher's in reserved tokens alone."""
        path = self._parts.student.path
        kind = self._parts.task.kind
        own = self.teacher_tokenizer if path is None else load.load_tokenizer(path, "student.path", kind)
        if kind != "tokens" or not differ_in_reserved(own, self.teacher_tokenizer):
            return own
        log.warning(
            "student.path=%s names other special tokens than the teacher, which are reserved in one of the two: student and "
            "teacher read with the teacher's tokenizer, and the student is saved with it.", path,
        )  # fmt: skip
        return self.teacher_tokenizer

    @lazy
    def head(self) -> Head:
        """Of student and teacher. Raises UserError if the task says another kind, by which batch and length are chosen."""
        task = self._parts.task
        head = task.head(self._parts.corpus, self.student_tokenizer)
        if head.kind != task.kind:
            raise UserError(
                f"task.kind={task.kind}, but the head of task={task.name} is {head}: set task.kind={head.kind}."
            )
        return head

    @lazy
    def teacher_config(self) -> Any:
        """Of the first member, as its folder has it; the student's, where the teacher has no model."""
        teacher = self._parts.teacher
        return load.load_config(self.lender, interaction=teacher.reads if teacher.models else AS_IT_IS)

    @lazy
    def student_config(self) -> Any:
        return self._parts.student.config(self.teacher_config, self.student_tokenizer)

    def config_of(self, options: Mapping[str, Any], key: str) -> Any:
        """Of a student of a stage's own. options: entries of conf/student. Raises UserError with the key for wrong ones."""
        try:
            return Student(**options).config(self.teacher_config, self.student_tokenizer)
        except (UserError, TypeError) as error:
            raise UserError(f"{key}: {error}") from error

    @lazy
    def late(self) -> dict[str, Late | None]:
        """student, teacher → its late interaction. Raises UserError for members of a teacher that differ in it."""
        members = self._parts.teacher.models
        each = {
            member.path: of_config(load.load_config(member.path, interaction=member.interaction)) for member in members
        }
        if len(set(each.values())) > 1:
            raise UserError(
                "the members of the teacher read queries and documents in different ways: "
                f"{'; '.join(f'{path}: {reads(own)}' for path, own in each.items())}. Give teacher.paths models of one kind, or "
                "set teacher.interaction."
            )
        return {"student": of_config(self.student_config), "teacher": next(iter(each.values()), None)}

    @lazy
    def teacher_shape(self) -> Any:
        return load.shape(self.teacher_config, "teacher.path", self._parts.task.kind)

    @lazy
    def student_shape(self) -> Any:
        student = self._parts.student
        return load.shape(
            self.student_config, "student.path" if student.path else "student.sizes", self._parts.task.kind
        )

    @lazy
    def teacher_spec(self) -> ModelSpec:
        teacher = self._parts.teacher
        paths = {each.path for each in teacher.models}
        own = {path: heads.own(self.head, load.load_config(path), f"teacher.path={path}") for path in paths}
        head = teacher.head(self.head, [own[member.path] for member in teacher.models])
        vocabulary = load.vocabulary_digest(self.teacher_tokenizer)
        if not teacher.models:
            return ModelSpec("teacher", 0, 0, 0, head, vocabulary)
        config = self._teacher_with_head()
        return ModelSpec.from_config(config, f"teacher {config.model_type}", head, vocabulary)

    @lazy
    def student_spec(self) -> ModelSpec:
        return self._parts.student.spec(self.teacher_config, self.student_tokenizer, self.head)

    @lazy
    def teacher_parameters(self) -> int:
        """Of all members together, with the task's head."""
        config, kind = self._teacher_with_head(), self._parts.task.kind
        with torch.random.fork_rng(devices=[]):  # a new head of late interaction is random
            parts = [load.shape(config, "teacher.path", kind), heads.states_head(kind, config)]
        return sum(p.numel() for each in parts if each for p in each.parameters()) * len(self._parts.teacher.models)

    def _teacher_with_head(self) -> Any:
        """The teacher's config with the task's head, which the teacher gets by fine-tuning or by alignment."""
        config = copy.deepcopy(self.teacher_config)
        config.update(heads.entries(self.head))
        return config
