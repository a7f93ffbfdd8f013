"""`Parts`: the objects that the config's groups describe. Each is made when it is first read, and made once.

Preflight reads all of them and collects what fails; a run reads the same objects.
"""

from typing import Any

from mangakd.core.errors import UserError
from mangakd.data.augment import Augment
from mangakd.data.rows import CLASSES
from mangakd.data.source import Corpus
from mangakd.runs.exports import Exports
from mangakd.runs.given import Given
from mangakd.runs.lazy import lazy
from mangakd.students.build import Student
from mangakd.tasks.base import Task
from mangakd.teachers.options import TeacherOptions
from mangakd.training.callbacks.save_last import SaveEvery
from mangakd.training.hardware import Hardware
from mangakd.training.on_policy import OnPolicy
from mangakd.training.optim import Optim
from mangakd.training.stages import Stage


class Parts:
    """One property for each group. Raises UserError for a group that describes no object."""

    def __init__(self, given: Given) -> None:
        self._given = given

    @lazy
    def task(self) -> Task:
        settings = self._given.settings("task")
        for entry in ("_target_", "judge"):  # a report is made again from config.yaml, without the task
            if entry not in settings:
                raise UserError(
                    f"task={settings['name']} has no {entry}: its yaml needs a _target_, and a judge that has one, too "
                    "(docs/how-to/add_a_task.md)."
                )
        return self._given.make("task")

    @lazy
    def rows(self) -> Corpus:
        """The data as it is read, before the task looks at it."""
        source = self._given.make("data")
        try:
            columns, optional = self.task.columns, self.task.optional
        except Exception:  # reported as the task's; a task that fails must not hide what is wrong with the data
            if self._given.settings("data").get("columns"):  # of a task whose columns cannot be known now
                raise
            columns, optional = CLASSES, ()
        return source.load(columns, optional)

    @lazy
    def corpus(self) -> Corpus:
        return self.task.prepare(self.rows)

    @lazy
    def hardware(self) -> Hardware:
        return self._given.make("hardware")

    @lazy
    def optim(self) -> Optim:
        return self._given.make("optim")

    @lazy
    def teacher(self) -> TeacherOptions:
        return self._given.make("teacher")

    @lazy
    def student(self) -> Student:
        return self._given.make("student")

    @lazy
    def augment(self) -> Augment:
        return self._given.make("augment")

    @lazy
    def on_policy(self) -> OnPolicy:
        return self._given.make("on_policy")

    @lazy
    def stages(self) -> list[Stage]:
        options = self._given.settings("stages") or {}
        try:
            stages = [Stage(name=str(name), **(entries or {})) for name, entries in options.items()]
        except TypeError as error:
            raise UserError(f"stages: {error}. Known entries: {', '.join(Stage.__match_args__[1:])}.") from error
        if not stages:
            raise UserError("there are no stages to train; choose a recipe, for example stages=output_only.")
        return stages

    @lazy
    def save_every(self) -> SaveEvery:
        return SaveEvery(**self._given.settings("checkpoint"))

    @lazy
    def loggers(self) -> list[Any]:
        """Lightning's loggers, none for logger=[]."""
        return self._given.make("logger")

    @lazy
    def exports(self) -> Exports:
        """What export=[…] makes of the student."""
        return self._given.make("export")
