"""From the composed config to the objects of a run. Each is built once, when it is first asked for.

Preflight asks for all of them and collects what goes wrong; a run asks for the same objects and finds them made.
"""

import contextlib
import logging
from collections.abc import Callable, Iterator
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from hydra.utils import instantiate
from omegaconf import DictConfig, OmegaConf
from transformers import AutoModelForSequenceClassification

from mangakd.core.errors import UserError
from mangakd.core.spec import ModelSpec
from mangakd.data.loader import EncodedSplit
from mangakd.data.source import Corpus
from mangakd.data.tokens import tokenise
from mangakd.losses.loss_set import LossSet
from mangakd.models import load
from mangakd.models.encoder import Encoder
from mangakd.students.build import Student
from mangakd.tasks.base import Task
from mangakd.teachers.options import Member, TeacherContext, TeacherOptions
from mangakd.training.callbacks.progress import bar
from mangakd.training.fit import Hardware
from mangakd.training.fit_teacher import fitted
from mangakd.training.module import Optim

log = logging.getLogger(__name__)


class Setup:
    """One run's parts. Raises UserError from whichever part cannot be made."""

    def __init__(self, config: DictConfig, folder: Path) -> None:
        self.config = config
        self.folder = folder
        self.cache = Path(config.paths.cache).expanduser().absolute()

    @cached_property
    def task(self) -> Task:
        return instantiate(self.config.task)

    @cached_property
    def corpus(self) -> Corpus:
        return instantiate(self.config.data).load()

    @cached_property
    def hardware(self) -> Hardware:
        return instantiate(self.config.hardware)

    @cached_property
    def optim(self) -> Optim:
        return instantiate(self.config.optim)

    @cached_property
    def teacher(self) -> TeacherOptions:
        return instantiate(self.config.teacher, _convert_="all")

    @cached_property
    def student(self) -> Student:
        return instantiate(self.config.student, _convert_="all")

    @cached_property
    def teacher_tokenizer(self) -> Any:
        found = [load.load_tokenizer(member.path) for member in _distinct(self.teacher.models)]
        if len({load.vocabulary_digest(tokenizer) for tokenizer in found}) > 1:
            raise UserError("the members of the teacher read with different tokenizers; teacher.paths must share one.")
        return found[0]

    @cached_property
    def student_tokenizer(self) -> Any:
        if self.student.path is None:
            return self.teacher_tokenizer
        return load.load_tokenizer(self.student.path, "student.path")

    @cached_property
    def teacher_config(self) -> Any:
        return load.load_config(self.teacher.models[0].path)

    @cached_property
    def teacher_spec(self) -> ModelSpec:
        """Sizes of the teacher with the data's labels, which its head gets by fine-tuning or by alignment."""
        config = self.teacher_config
        config.update(load.head_options(self.corpus.labels, self.task.problem))
        return ModelSpec.from_config(
            config, f"teacher {config.model_type}", load.vocabulary_digest(self.teacher_tokenizer)
        )

    @cached_property
    def teacher_parameters(self) -> int:
        """Of all members together, counted on the meta device."""
        with torch.device("meta"):
            model = AutoModelForSequenceClassification.from_config(self.teacher_config)
        return sum(p.numel() for p in model.parameters()) * len(self.teacher.models)

    @cached_property
    def student_spec(self) -> ModelSpec:
        config = load.load_config(self.teacher.models[0].path)
        return self.student.spec(config, self.student_tokenizer, self.corpus.labels, self.task.problem)

    @cached_property
    def losses(self) -> LossSet:
        """Fresh losses, bound to both sizes."""
        losses = LossSet(instantiate(self.config.losses, _convert_="all"))
        torch.manual_seed(self.config.seed)  # projections start from random weights
        losses.bind(self.student_spec, self.teacher_spec)
        return losses

    @cached_property
    def splits(self) -> dict[str, EncodedSplit]:
        return {name: self._encoded(name) for name in self.corpus.splits}

    def _encoded(self, name: str) -> EncodedSplit:
        rows = self.corpus.splits[name]
        cache, length = self.cache / "tokens", self.config.data.max_length
        teacher = tokenise(rows.texts, self.teacher_tokenizer, length, cache)
        same = load.vocabulary_digest(self.student_tokenizer) == load.vocabulary_digest(self.teacher_tokenizer)
        student = teacher if same else tokenise(rows.texts, self.student_tokenizer, length, cache)
        pads = (self.student_tokenizer.pad_token_id, self.teacher_tokenizer.pad_token_id)
        return EncodedSplit(student, teacher, self.task.targets(rows, self.corpus.labels), *pads)

    def load_teacher(self, member: Member) -> Encoder:
        """A member's fine-tuned encoder, fine-tuning it first where its head is new."""
        return fitted(
            member, self.teacher.fit, self.teacher.labels, self.corpus, self.task, self.splits, self.teacher_tokenizer,
            self.hardware, self.cache,
        )  # fmt: skip

    @cached_property
    def context(self) -> TeacherContext:
        return TeacherContext(
            labels=self.corpus.labels,
            load=self.load_teacher,
            splits=self.splits,
            cache=self.cache,
            device=self.hardware.device,
            batch_size=self.hardware.eval_batch_size,
            progress=progress,
        )

    def resolved(self) -> Any:
        """The config as plain values, for config.yaml and loggers."""
        return OmegaConf.to_container(self.config, resolve=True)


@contextlib.contextmanager
def progress(title: str, total: int) -> Iterator[Callable[[int], None]]:
    """A bar for work that is counted in rows."""
    with bar() as shown:
        task = shown.add_task(title, total=total, note="rows")
        yield lambda rows: shown.update(task, advance=rows)


def _distinct(members: list[Member]) -> list[Member]:
    return list({member.path: member for member in members}.values())
