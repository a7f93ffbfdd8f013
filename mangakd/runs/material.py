"""`Material`: what the fits of a run work on: encoded texts, bound losses, the teacher's models, untrained students.

Each is built when it is first read: preflight needs the losses, a plan the texts, `cache_teacher` the teacher, a run all of them.
"""

from functools import partial

from mangakd.core import ranks
from mangakd.core.requires import Need
from mangakd.core.spec import ModelSpec
from mangakd.data.encoded import EncodedSplit
from mangakd.losses.loss_set import LossSet
from mangakd.runs import texts
from mangakd.runs.generations import Generations
from mangakd.runs.given import Given
from mangakd.runs.lazy import lazy
from mangakd.runs.losses import bound_losses
from mangakd.runs.models import Models
from mangakd.runs.parts import Parts
from mangakd.runs.settings import of_learning
from mangakd.runs.students import Students
from mangakd.tasks.base import Samples
from mangakd.teachers.base import TeacherProvider
from mangakd.teachers.cached import stored
from mangakd.teachers.calibrated import calibrated
from mangakd.teachers.members import Members
from mangakd.teachers.options import TeacherContext
from mangakd.training.callbacks.progress import progress
from mangakd.training.checkpoints import Identity
from mangakd.training.fit_teacher import fit_teacher
from mangakd.training.on_policy import OwnTexts
from mangakd.training.stages import Stage
from mangakd.training.validation_texts import ValidationTexts


class Material:
    def __init__(self, given: Given, parts: Parts, models: Models) -> None:
        self._given, self._parts, self._models = given, parts, models

    @lazy
    def losses(self) -> LossSet:
        """All losses of the run, bound to the sizes of both models."""
        names = self._given.settings("losses") or {}
        return bound_losses(
            self._given.make, names, self._models.student_spec, self._models.teacher_spec, self._given.seed
        )

    def stage_losses(self, stage: Stage, student: ModelSpec, teacher: ModelSpec) -> LossSet:
        """Fresh losses of a stage."""
        names = stage.select(self._given.settings("losses") or {})
        return bound_losses(self._given.make, names, student, teacher, self._given.seed)

    @lazy
    def tokeniser(self) -> texts.Tokeniser:
        models = self._models
        return texts.Tokeniser(
            models.student_tokenizer,
            models.teacher_tokenizer,
            self._given.max_length,
            self._given.cache / "tokens",
            models.late["student"],
            models.late["teacher"],
        )

    @lazy
    def splits(self) -> dict[str, EncodedSplit]:
        """train, validation and test, and the texts without labels that a stage reads."""
        parts, models = self._parts, self._models
        augmented = partial(
            texts.augmented_texts, parts.augment, parts.corpus, models.head, models.lender,
            models.teacher_tokenizer, self._given.cache / "augmented",
        )  # fmt: skip
        return texts.splits_of(parts.corpus, parts.task, models.head, parts.stages, self.tokeniser, augmented)

    @lazy
    def generations(self) -> Generations:
        """What the models write for the report, to test prompts."""
        samples = self._samples("test")
        return Generations(samples, len(self.splits["test"]), self._given.folder, self._parts.hardware.device)

    @lazy
    def validation_texts(self) -> ValidationTexts | None:
        """What the student writes on validation while it is trained; None where it writes nothing."""
        task = self._parts.task
        samples = self._samples("validation") if task.generate_every else None
        if samples is None:
            return None
        return ValidationTexts(samples, self.splits["validation"], task.judge, task.generate_every)

    def _samples(self, name: str) -> Samples | None:
        parts, split = self._parts, self.splits[name]
        rows, tokenizer = split.rows_of(parts.corpus.splits[name]), self.tokeniser.chat_tokenizer
        return parts.task.samples(rows, split, tokenizer, self._given.max_length)

    @lazy
    def own_texts(self) -> OwnTexts | None:
        """What the student writes while it is trained; None where it writes nothing."""
        options = self._parts.on_policy
        if not options.share:
            return None
        author = self._parts.task.author(self.tokeniser.chat_tokenizer, self._given.max_length)
        return None if author is None else OwnTexts(options, author, self._given.seed)

    @lazy
    def digest(self) -> str:
        """Of the labelled rows that a fit reads."""
        return self._parts.corpus.digest("train", "validation")

    @lazy
    def members(self) -> Members:
        """The teacher's models, which are fine-tuned where their heads are new."""
        parts, hardware, tokenizer = self._parts, self._parts.hardware, self._models.teacher_tokenizer
        fit = partial(
            fit_teacher, options=parts.teacher.fit, names=parts.teacher.labels, task=parts.task, head=self._models.head,
            data=self.digest, splits=self.splits, tokenizer=tokenizer, hardware=hardware, cache=self._given.cache,
        )  # fmt: skip
        source = parts.teacher.models[0] if parts.student.needs_teacher and parts.teacher.models else None
        return Members(fit, tokenizer, hardware.teacher.weights, hardware.attention, source, hardware.packing)

    @lazy
    def context(self) -> TeacherContext:
        hardware = self._parts.hardware
        return TeacherContext(
            head=self._models.head,
            load=self.members.unread,
            splits=self.splits,
            cache=self._given.cache,
            device=hardware.device,
            batch_size=hardware.eval_batch_size,
            progress=progress,
            precision=hardware.precision,
            texts=texts.sequence_texts(self._parts.corpus, self._parts.task, self._parts.stages),
        )

    def teacher(self) -> TeacherProvider:
        """The teacher, ready to answer; all ranks ask for it together.

        The runs of a sweep share one store if their losses read nothing but answers to given texts. Those of language models do
        not: states, which alone give the live teacher's loss, may be larger than the disk.
        """
        with ranks.first_then_others():  # the other ranks find the texts tokenised and the teacher fine-tuned
            for member in self._parts.teacher.models:
                self.context.load(member)
        small = self._models.head.kind != "tokens"
        shared = small and self._given.sweep and not self.losses.requires.teacher.missing(Need(answer=True))
        return self.stored_teacher() if shared else self.provider()

    def provider(self) -> TeacherProvider:
        """The teacher as conf/teacher says."""
        return calibrated(self._parts.teacher, self.context)

    def stored_teacher(self) -> TeacherProvider:
        """The same teacher, its answers read from the store."""
        return calibrated(stored(self._parts.teacher, self._models.head.kind), self.context)

    @lazy
    def students(self) -> Students:
        parts, hardware = self._parts, self._parts.hardware
        sharded = hardware.teacher.placement == "sharded"  # no process has all weights of a teacher in use
        models = parts.teacher.models
        source = partial(self.members.checkpoint, models[0], anew=sharded) if models else None
        return Students(
            parts.student, source, self._models.student_tokenizer, self._models.head,
            hardware.attention, hardware.packing, self._given.seed,
            1 + self._given.baseline + (parts.task.shows_untrained and parts.student.adapters is None),
            partial(texts.some_inputs, self.splits), hardware.frozen,
        )  # fmt: skip

    @lazy
    def identity(self) -> Identity:
        """What every fit of the run learns from; `identity_of` adds what a single fit learns from."""
        return Identity(
            data=self.digest, labels=self._parts.corpus.labels, settings=of_learning(self._given.settings(None))
        )
