"""`fit_teacher`: fine-tune a teacher that has no head for the task, and cache the model.

A teacher with a random head is the most expensive silent mistake in distillation. The cache key is a fingerprint of the
initial weights, the data and the settings, so a sweep fine-tunes a teacher once.
"""

import inspect
import json
import logging
import shutil
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from mangakd.core.errors import UserError
from mangakd.core.locks import waiting_lock
from mangakd.core.spec import Head
from mangakd.data.encoded import EncodedSplit
from mangakd.losses.base import LossCallback
from mangakd.losses.loss_set import LossSet
from mangakd.models import heads, load
from mangakd.models.outline import Outline
from mangakd.models.trial import check_numbers
from mangakd.tasks.base import Task
from mangakd.teachers.base import digest
from mangakd.teachers.options import FitOptions, Member
from mangakd.training.checkpoints import newest
from mangakd.training.fit import Fit, fit
from mangakd.training.hardware import Hardware
from mangakd.training.optim import Optim

log = logging.getLogger(__name__)
KEY = "teacher.path"


def fit_teacher(
    member: Member, options: FitOptions, names: Sequence[str] | None, data: str, task: Task, head: Head,
    splits: dict[str, EncodedSplit], tokenizer: Any, hardware: Hardware, cache: Path,
) -> Outline:  # fmt: skip
    """The outline of a member with the task's head; the weights are not read. data: digest of the labelled rows.

    names: of the outputs, if the member's config has none. Raises UserError if the member needs a new head and
    teacher.fit.mode=never.
    """
    trained = None
    if options.mode != "always":
        trained = load.outline_trained(member.path, KEY, head.kind, names, member.interaction)
    if trained is not None:
        return replace(trained, head=heads.trained_head(trained.model.config, head))
    check_may_fit(member, options)
    member = options.member(member)
    torch.manual_seed(member.seed)  # the new head
    base = load.outline_for(member.path, head, KEY, member.interaction)
    # The fingerprint covers the data and its label order, and of the own loss what differs from its defaults. From the hardware
    # config it includes only the step size, the one setting that affects training.
    mark = digest(
        base.digest(torch.float32), data, splits["train"].teacher.keys.sum(), options.epochs, options.lr,
        *hardware.step.record.values(), member.seed, (head.problem_type or head.kind).removesuffix("_classification"),
        *_changed(task.own_loss()),
    )  # fmt: skip
    folder = cache / "teachers" / mark
    with waiting_lock(cache / "locks" / mark, "fine-tuning the teacher"):  # parallel runs of a sweep share the teacher
        if not (folder / "done.json").is_file():
            model = load.read_model(base, member.path, KEY)
            check_numbers(load.encoder(model, head, KEY, tokenizer), tokenizer, f"{KEY}={member.path}")
            _train(model, head, folder, member, options, task, splits, tokenizer, hardware)
    log.info("teacher %s (seed %d), fine-tuned: %s", member.path, member.seed, folder)
    try:
        outline = load.outline_trained(str(folder), KEY, head.kind)
    except UserError as error:
        raise UserError(
            f"the cached teacher {folder} is damaged ({error}) Delete that folder; the next run fine-tunes the teacher again."
        ) from error
    assert outline is not None  # its config.json says that it is a classifier
    return outline


def _changed(loss: LossCallback) -> list[tuple[str, Any]]:
    """Its options that are not the defaults."""
    options = inspect.signature(type(loss)).parameters
    return [(name, value) for name, value in loss.config.items() if value != options[name].default]


def check_may_fit(member: Member, options: FitOptions) -> None:
    """Raises UserError if teacher.fit.mode forbids fine-tuning the model."""
    if options.mode == "never":
        config = load.load_config(member.path)
        raise UserError(
            f"teacher.path={member.path} has no head for this task (its architecture is {config.architectures}), and "
            "teacher.fit.mode=never. Give a fine-tuned folder, or let teacher.fit.mode=auto fine-tune it."
        )


def _train(
    model: Any, head: Head, folder: Path, member: Member, options: FitOptions, task: Task, splits: dict[str, EncodedSplit],
    tokenizer: Any, hardware: Hardware,
) -> None:  # fmt: skip
    scratch = folder.with_name(f"{folder.name}.partial")
    encoder = load.encoder(model, head, f"teacher {model.config.model_type}", tokenizer).train()
    losses = LossSet({"own_loss": task.own_loss()})
    losses.bind(encoder.spec, None)
    setup = Fit(
        f"fine-tune teacher (seed {member.seed})", scratch, task, splits["train"].of_teacher,
        splits["validation"].of_teacher, Optim(lr=options.lr), hardware.alone, member.seed,
        trainer={"max_epochs": options.epochs},
    )  # fmt: skip
    setup.resume = newest(setup.checkpoints)  # of an interrupted fine-tuning
    result = fit(encoder, losses, None, setup)
    shutil.rmtree(scratch / "checkpoints")
    with load.quiet():
        encoder.save_pretrained(scratch)
        tokenizer.save_pretrained(scratch)
    (scratch / "done.json").write_text(json.dumps({f"val/{task.monitor}": result.score, "from": member.path}))
    shutil.rmtree(folder, ignore_errors=True)
    scratch.rename(folder)
