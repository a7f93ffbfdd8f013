"""From the composed config to the objects of a run. Each is built once, when it is first asked for.

Preflight asks for all of them and collects what goes wrong; a run asks for the same objects and finds them made.
"""

import copy
import logging
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

import torch
from hydra.errors import InstantiationException
from hydra.utils import instantiate
from omegaconf import DictConfig, OmegaConf

from mangakd.cli.exports import Exports
from mangakd.cli.part import part
from mangakd.cli.sweep import sweeping
from mangakd.cli.tracking import built
from mangakd.cli.values import flat
from mangakd.core import ranks
from mangakd.core.errors import UserError
from mangakd.core.invocation import command
from mangakd.core.requires import Need
from mangakd.core.spec import Head, ModelSpec
from mangakd.data.augment import Augment, Neighbours, kept
from mangakd.data.encoded import EncodedSplit, Sides, joined
from mangakd.data.rows import CLASSES, Rows, inputs
from mangakd.data.source import Corpus
from mangakd.data.tokenising import tokenise
from mangakd.losses.loss_set import LossSet
from mangakd.models import heads, load
from mangakd.models.encoder import Encoder
from mangakd.models.trial import check_numbers
from mangakd.students.build import Student
from mangakd.tasks.base import Task
from mangakd.teachers.base import TeacherProvider, digest
from mangakd.teachers.cached import stored
from mangakd.teachers.members import Members
from mangakd.teachers.options import TeacherContext, TeacherOptions
from mangakd.training.callbacks.progress import progress
from mangakd.training.callbacks.save_last import SaveEvery
from mangakd.training.checkpoints import Identity
from mangakd.training.fit_teacher import fit_teacher
from mangakd.training.hardware import Hardware
from mangakd.training.optim import Optim
from mangakd.training.stages import Stage

log = logging.getLogger(__name__)
LEARNT_FROM = ("losses", "optim", "student", "stages", "trainer", "seed")  # settings that change what is learnt


class Setup:
    """One run's parts. Raises UserError from whichever part cannot be made."""

    def __init__(self, config: DictConfig, folder: Path) -> None:
        self.config = config
        self.folder = folder
        self.cache = Path(config.paths.cache).expanduser().absolute()
        self._fresh_student: Encoder | None = None

    @part
    def task(self) -> Task:
        task = self.config.task
        if "_target_" not in task:
            raise UserError(
                f"task={task.name} can be planned ({command('plan')} hardware=… task={task.name}) but not yet trained. "
                "Choose task=intent."
            )
        if "judge" not in task:  # a report is made again from config.yaml, without the task
            raise UserError(
                f"task={task.name} has no judge: give its yaml a judge with a _target_ (docs/how-to/extending.md)."
            )
        return instantiate(task)

    @part
    def rows(self) -> Corpus:
        """The data as it is read, before the task has looked at it."""
        try:
            columns = self.task.columns
        except (UserError, InstantiationException):  # told as the task's; it must not hide what is wrong with the data
            columns = CLASSES
        return instantiate(self.config.data).load(columns)

    @part
    def corpus(self) -> Corpus:
        return self.task.prepare(self.rows)

    @part
    def hardware(self) -> Hardware:
        return instantiate(self.config.hardware)

    @part
    def head(self) -> Head:
        """Of student and teacher."""
        return self.task.head(self.corpus, self.student_tokenizer)

    @property
    def device(self) -> torch.device:
        """Where this process predicts outside a fit."""
        kind = self.hardware.kind
        return torch.device(kind, ranks.local_rank()) if kind == "cuda" else torch.device(kind)

    @part
    def save_every(self) -> SaveEvery:
        return SaveEvery(**self.config.checkpoint)

    @part
    def optim(self) -> Optim:
        return instantiate(self.config.optim)

    @part
    def teacher(self) -> TeacherOptions:
        return instantiate(self.config.teacher, _convert_="all")

    def provider(self) -> TeacherProvider:
        """The teacher, ready to answer; all ranks ask for it together.

        A sweep asks it once for all its runs, where they read nothing but logits.
        """
        with ranks.first_then_others():  # the others find the texts tokenised and the teacher fine-tuned
            for member in self.teacher.models:
                self.context.load(member)
        shared = sweeping() and not self.losses.requires.teacher.missing(Need(logits=True))
        return (stored(self.teacher) if shared else self.teacher).provider(self.context)

    @part
    def student(self) -> Student:
        return instantiate(self.config.student, _convert_="all")

    @part
    def teacher_tokenizer(self) -> Any:
        tokenizers = [load.load_tokenizer(path) for path in {member.path: None for member in self.teacher.models}]
        if len({load.vocabulary_digest(tokenizer) for tokenizer in tokenizers}) > 1:
            raise UserError("the members of the teacher read with different tokenizers; teacher.paths must share one.")
        return tokenizers[0]

    @part
    def student_tokenizer(self) -> Any:
        if self.student.path is None:
            return self.teacher_tokenizer
        return load.load_tokenizer(self.student.path, "student.path")

    @part
    def teacher_config(self) -> Any:
        return load.load_config(self.teacher.models[0].path)

    @part
    def teacher_spec(self) -> ModelSpec:
        """Sizes of the teacher with the task's head, which it gets by fine-tuning or by alignment."""
        config = self.teacher_config
        config.update(heads.entries(self.head))
        return ModelSpec.from_config(
            config, f"teacher {config.model_type}", self.head, load.vocabulary_digest(self.teacher_tokenizer)
        )

    @part
    def teacher_parameters(self) -> int:
        """Of all members together, with heads for the data's labels."""
        _ = self.teacher_spec
        model = load.shape(self.teacher_config, "teacher.path", self.task.kind)
        return sum(p.numel() for p in model.parameters()) * len(self.teacher.models)

    @part
    def teacher_shape(self) -> Any:
        """The teacher on the meta device: its modules and sizes without weights."""
        return load.shape(self.teacher_config, "teacher.path", self.task.kind)

    @part
    def student_shape(self) -> Any:
        """The student on the meta device."""
        teacher = load.load_config(self.teacher.models[0].path)
        key = "student.path" if self.student.path else "student.sizes"
        return load.shape(self.student.config(teacher, self.student_tokenizer), key, self.task.kind)

    @part
    def student_spec(self) -> ModelSpec:
        config = load.load_config(self.teacher.models[0].path)
        return self.student.spec(config, self.student_tokenizer, self.head)

    @part
    def losses(self) -> LossSet:
        """Fresh losses, bound to both sizes."""
        return self._bound(self.config.get("losses"), self.student_spec, self.teacher_spec)

    @part
    def stages(self) -> list[Stage]:
        options = OmegaConf.to_container(self.config.stages, resolve=True)
        try:
            stages = [Stage(name=str(name), **(entries or {})) for name, entries in (options or {}).items()]  # type: ignore[union-attr]
        except TypeError as error:
            raise UserError(f"stages: {error}. Known entries: {', '.join(Stage.__match_args__[1:])}.") from error
        if not stages:
            raise UserError("there are no stages to train; choose a recipe, for example stages=output_only.")
        return stages

    @part
    def augment(self) -> Augment:
        return instantiate(self.config.augment)

    @part
    def splits(self) -> dict[str, EncodedSplit]:
        """train, validation and test, and the texts without labels that a stage reads."""
        kinds = [kind for kind in ("unlabelled", "augmented") if any(kind in stage.texts for stage in self.stages)]
        rows = self.corpus.splits | {kind: self._without_labels(kind) for kind in kinds}
        return {name: self.task.encode(each, self.head, self._tokenised) for name, each in rows.items()}

    def _tokenised(self, texts: Sequence[str]) -> Sides:
        cache, length = self.cache / "tokens", self.config.data.max_length
        teacher = tokenise(texts, self.teacher_tokenizer, length, cache, progress)
        same = load.vocabulary_digest(self.student_tokenizer) == load.vocabulary_digest(self.teacher_tokenizer)
        student = teacher if same else tokenise(texts, self.student_tokenizer, length, cache, progress)
        return Sides(student, teacher, self.student_tokenizer.pad_token_id, self.teacher_tokenizer.pad_token_id)

    def _without_labels(self, kind: str) -> Rows:
        rows = Rows({"text": self._augmented()}) if kind == "augmented" else self.corpus.unlabelled
        if not len(rows):
            key = "augment.copies" if kind == "augmented" else "data.unlabelled_path or data.labelled_share"
            raise UserError(f"a stage reads {kind} texts and there are none: set {key}.")
        return rows

    def _augmented(self) -> list[str]:
        """Made once, kept in the cache."""
        corpus, head = self.corpus, self.head
        if inputs(self.task.columns) != ["text"]:
            raise UserError(
                f"new texts are made of rows of one text, and task={self.task.name} reads "
                f"{', '.join(inputs(self.task.columns))}: leave `augmented` out of the stages' texts."
            )
        texts = [*corpus.train["text"], *corpus.unlabelled["text"]]
        held_out = [*corpus.validation["text"], *corpus.test["text"]]
        path = self.teacher.models[0].path

        def make() -> list[str]:
            log.info("making %d variants of each of %d texts …", self.augment.copies, len(texts))
            base = load.outline_for(path, head, "teacher.path")
            words = Neighbours(self.teacher_tokenizer, base.weight(base.model.get_input_embeddings().weight).detach())
            return self.augment.made(texts, words, held_out)

        return kept(self.cache / "augmented" / f"{digest(self.augment, path, texts, held_out)}.json", make)

    def stage_split(self, stage: Stage) -> EncodedSplit:
        """What a stage trains on."""
        names = {"labelled": "train"}
        return joined([self.splits[names.get(kind, kind)] for kind in stage.texts])

    def stage_losses(self, stage: Stage, student: ModelSpec, teacher: ModelSpec) -> LossSet:
        """Fresh losses of a stage, bound to both sizes."""
        return self._bound(stage.select(self.resolved().get("losses") or {}), student, teacher)

    def _bound(self, chosen: Any, student: ModelSpec, teacher: ModelSpec) -> LossSet:
        losses = LossSet(instantiate(chosen or {}, _convert_="all"))
        torch.manual_seed(self.config.seed)  # projections start from random weights
        losses.bind(student, teacher)
        return losses

    @part
    def members(self) -> Members:
        """The teacher's models, which are fine-tuned where their heads are new."""
        fit = partial(
            fit_teacher, options=self.teacher.fit, names=self.teacher.labels, head=self.head, corpus=self.corpus, task=self.task,
            splits=self.splits, tokenizer=self.teacher_tokenizer, hardware=self.hardware, cache=self.cache,
        )  # fmt: skip
        source = self.teacher.models[0] if self.student.takes_layers else None
        return Members(fit, self.teacher_tokenizer, self.hardware.teacher.weights, self.hardware.attention, source)

    def build_student(self, options: dict[str, Any] | None = None) -> Encoder:
        """Fresh, the same on every rank. options: entries of conf/student for another one, such as an assistant."""
        if options is None and self._fresh_student is not None:
            student, self._fresh_student = self._fresh_student, None
            return student
        chosen = self.student if options is None else Student(**options)
        sharded = self.hardware.teacher.placement == "sharded"  # no process has all weights of a teacher in use
        source = self.members.checkpoint(self.teacher.models[0], anew=sharded) if chosen.takes_layers else None
        torch.manual_seed(self.config.seed)  # the student's random weights, however the teacher was come by
        student = chosen.build(source, self.student_tokenizer, self.head)
        if chosen.path is not None:
            check_numbers(student, self.student_tokenizer, f"student.path={chosen.path}").train()
        student.attend_with(self.hardware.attention)
        if options is None and self.config.baseline:
            self._fresh_student = copy.deepcopy(student)  # the baseline starts from it
        return student

    @part
    def context(self) -> TeacherContext:
        return TeacherContext(
            head=self.head,
            load=self.members.unread,
            splits=self.splits,
            cache=self.cache,
            device=self.device,
            batch_size=self.hardware.eval_batch_size,
            progress=progress,
            precision=self.hardware.precision,
        )

    @part
    def loggers(self) -> list[Any]:
        """Lightning's loggers, none for logger=[]."""
        return built(self.config.get("logger") or DictConfig({}))

    @part
    def exports(self) -> Exports:
        """What export=[…] makes of the student."""
        return Exports.of(self.config, self.config.data.max_length)

    def identity(self, teacher: TeacherProvider | None, stage: Stage) -> Identity:
        """What a fit of this run learns from, for its checkpoints. teacher: None for the baseline."""
        settings = self.resolved()
        return Identity(
            teacher=digest(teacher.fingerprint, getattr(teacher, "weights", None)) if teacher else None,
            data=digest(self.corpus.digest("train", "validation"), self.stage_split(stage).student.keys.sum()),
            labels=self.corpus.labels,
            stage=stage.name,
            settings=flat({group: settings.get(group) for group in LEARNT_FROM}),
        )

    def resolved(self) -> Any:
        """The config as plain values, for config.yaml and loggers."""
        return OmegaConf.to_container(self.config, resolve=True)
