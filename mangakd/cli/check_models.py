"""Preflight of the models: weights, labels, sizes, what losses read of them, and what a resumed run would fine-tune anew."""

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

from omegaconf import OmegaConf

from mangakd.cli.setup import Setup
from mangakd.cli.values import flat
from mangakd.core.errors import UserError
from mangakd.core.requires import Need
from mangakd.core.spec import Head
from mangakd.losses.base import LossCallback
from mangakd.models import heads, load
from mangakd.models.encoder import offers_attention
from mangakd.models.labels import alignment
from mangakd.models.outline import Outline
from mangakd.models.trial import answer_two_texts
from mangakd.students.build import check_layers
from mangakd.teachers.ensemble import normalised
from mangakd.teachers.options import EnsembleOptions, Member
from mangakd.training.checkpoints import KEY, check_same, damage, newest, read
from mangakd.training.fit_teacher import KEY as TEACHER
from mangakd.training.fit_teacher import check_may_fit

ANY_HEAD = Head.of_labels(("a", "b"))  # where only the encoder's weights are looked at, whatever is wrong with the data
SAME_TEACHER = ("path", "paths", "seed", "seeds", "labels", "fit")  # entries of conf/teacher that make another one


def teachers(setup: Setup) -> None:
    """Every member's weights, and a fine-tuned one's labels against the data's."""
    options = setup.teacher
    if isinstance(options, EnsembleOptions) and not isinstance(options.weights, str):
        if not all(isinstance(weight, int | float) for weight in options.weights or ()):
            raise UserError(f"teacher.weights={options.weights} must be numbers ≥ 0, one for each member.")
        normalised(options.weights, len(options.models))
    unfitted = [member for member in dict.fromkeys(options.models) if not _is_fitted(setup, member)]
    if unfitted:
        _check_same_fit(setup)


def _is_fitted(setup: Setup, member: Member) -> bool:
    """Whether the member's weights hold a head for the task. Raises UserError for a member that cannot be the teacher."""
    fit, tokenizer = setup.teacher.fit, setup.teacher_tokenizer
    _check_vocabulary(TEACHER, member.path, tokenizer, load.load_config(member.path, TEACHER))
    trained = (
        None
        if fit.mode == "always"
        else load.outline_trained(member.path, TEACHER, setup.task.kind, setup.teacher.labels)
    )
    if trained is not None:
        alignment(heads.trained_head(trained.model.config, setup.head), setup.head, member.path)
    else:
        check_may_fit(member, fit)
    _check_answers(trained, member.path, TEACHER, tokenizer)
    return trained is not None


def _check_answers(outline: Outline | None, path: str, key: str, tokenizer: Any) -> None:
    """outline: None for a model whose head will be new."""
    outline = outline or load.outline_for(path, ANY_HEAD, key)
    answer_two_texts(load.encoder(outline.model, outline.head, key, tokenizer), tokenizer, f"{key}={path}")


def _check_vocabulary(key: str, path: str, tokenizer: Any, config: Any) -> None:
    if len(tokenizer) > config.vocab_size:
        raise UserError(
            f"{key}={path}: its tokenizer has {len(tokenizer)} tokens and its model embeds {config.vocab_size}; "
            "they do not belong together. Save the model's own tokenizer beside it."
        )


def _check_same_fit(setup: Setup) -> None:
    """A resumed run whose teacher would be fine-tuned in another way, after which its checkpoint would be refused."""
    file = _checkpoint(setup)
    if file is None:
        return
    rows, now = read(file)[KEY]["step_rows"], setup.hardware.step_rows
    changes = [] if rows == now else [f"hardware.batch_size makes steps of {now} rows, which were {rows}"]
    home = next((folder for folder in file.parents if (folder / "config.yaml").is_file()), None)
    if home is not None:
        before: Any = OmegaConf.to_container(OmegaConf.load(home / "config.yaml"), resolve=True)["teacher"]  # type: ignore[index, call-overload]
        old, new = (
            flat({key: group.get(key) for key in SAME_TEACHER}) for group in (before, setup.resolved()["teacher"])
        )
        changes += [f"teacher.{k} is {new.get(k)}, which was {v}" for k, v in old.items() if new.get(k) != v]
    if changes:
        raise UserError(
            f"resume={setup.config.resume}: the teacher of {file} was fine-tuned with other settings: {'; '.join(changes)}. "
            "It would be fine-tuned again, and the checkpoint refused. Set them back, or start anew with resume=false and "
            "another hydra.run.dir."
        )


def resumed(setup: Setup) -> None:
    """Other data, labels or stages than the checkpoint that a run goes on from has learnt from."""
    file = _checkpoint(setup)
    if file is None or len(setup.stages) > 1:
        return
    found = read(file)[KEY]
    now = setup.identity(None, setup.stages[0])
    check_same(file, found, replace(now, teacher=found["teacher"], settings=found["settings"]))


def _checkpoint(setup: Setup) -> Path | None:
    """The one that the run goes on from, None where there is none; preflight.run_folder tells what is wrong with it."""
    resume = setup.config.resume
    if resume is False:
        return None
    if resume != "auto":
        given = Path(str(resume))
        return given if given.is_file() and not damage(given) else None
    folders = [setup.folder / "checkpoints", *setup.folder.glob("stages/*/checkpoints")]
    return next((file for folder in folders if (file := newest(folder)) is not None), None)


def student(setup: Setup) -> None:
    """A student that cannot be built, or whose folder lacks weights."""
    options, key = setup.student, "student.path"
    if options.path is None:
        if options.layers is not None:
            check_layers(setup.teacher_shape, options.layers)
        _ = setup.student_shape
        return
    _check_vocabulary(key, options.path, setup.student_tokenizer, load.load_config(options.path, key))
    _check_answers(None, options.path, key, setup.student_tokenizer)


def lengths(setup: Setup) -> None:
    """Texts longer than a model has positions for."""
    want = setup.config.data.max_length
    for name, model in (("teacher", setup.teacher_shape), ("student", setup.student_shape)):
        most = load.positions(model)
        if most is not None and isinstance(want, int) and want > most:
            raise UserError(
                f"data.max_length={want}, but the {name} has positions for {most} tokens. Set data.max_length={most} or less."
            )


def taps(setup: Setup) -> None:
    """Losses that read of a model what its architecture does not give."""
    shapes = {"teacher": setup.teacher_shape, "student": setup.student_shape}
    depths = {"teacher": setup.teacher_spec.layers, "student": setup.student_spec.layers}
    problems: dict[str, None] = {}
    for stage in setup.stages:
        for name, loss in stage.chosen(setup.losses.callbacks).items():
            for side, need in (("teacher", loss.requires.teacher), ("student", loss.requires.student)):
                problems |= dict.fromkeys(_untapped(name, loss, need, side, shapes[side], depths[side]))
    if problems:
        raise UserError("\n- ".join(problems))


def _untapped(name: str, loss: LossCallback, need: Need, side: str, model: Any, depth: int) -> Iterator[str]:
    kind = model.config.model_type
    if not need.hidden and not need.attention:
        return
    if model.config.is_encoder_decoder:
        yield (
            f"losses.{name} reads layers, and the {side} is a {kind}, which has an encoder and a decoder. Leave {name} out of "
            "losses; losses on logits (hard_label, output) fit."
        )
    elif need.attention and loss.reads_queries and not offers_attention(model, depth):
        cure = f"Set {loss.key('compare')}=kl or mse" if "compare" in loss.config else f"Leave {name} out of losses"
        yield (
            f"losses.{name} reads queries and keys, and the attention of the {side}, a {kind}, gives its probabilities only. "
            f"{cure}."
        )
