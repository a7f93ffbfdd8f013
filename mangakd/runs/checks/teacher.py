"""Preflight of the teacher: its weights and labels, the store that it fills, and what a resumed run would fine-tune again."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

from mangakd.core.errors import UserError
from mangakd.core.spec import Head, Kind, ModelSpec
from mangakd.data.steps import StepSize, step_of
from mangakd.models import heads, load
from mangakd.models.labels import alignment
from mangakd.runs.checks.models import check_answers, check_vocabulary
from mangakd.runs.settings import of_teacher
from mangakd.store.manifest import MANIFEST_FILE, Manifest
from mangakd.teachers import standard
from mangakd.teachers.cached import Cached
from mangakd.teachers.calibrated import check_smooth
from mangakd.teachers.ensemble import check_likelihood, normalised
from mangakd.teachers.options import Member, TeacherOptions
from mangakd.teachers.several import CONCATENATED, EnsembleOptions, check_combinable
from mangakd.teachers.standard import check_scores
from mangakd.training.checkpoints import KEY, read
from mangakd.training.fit_teacher import KEY as TEACHER
from mangakd.training.fit_teacher import check_may_fit


def weights(options: TeacherOptions, kind: Callable[[], Kind]) -> None:
    """Weights of an ensemble that are no numbers, not as many as members, or to be learned for a head without labels; a way to
    combine members that does not fit the head."""
    if not isinstance(options, EnsembleOptions):
        return
    check_combinable(kind(), options.combine, len(options.members) > 1)
    if options.combine == standard.COMBINE:
        check_scores(kind())
    if isinstance(options.weights, str):
        check_likelihood(kind())
        return
    if not all(isinstance(weight, int | float) for weight in options.weights or ()):
        raise UserError(f"teacher.weights={options.weights} must be numbers ≥ 0, one for each member.")
    normalised(options.weights, len(options.members))


def smoothing(options: TeacherOptions, head: Callable[[], Head]) -> None:
    """A share of smoothing that leaves no class ahead of the others. head: of the task; asked only where it matters."""
    if options.smooth:
        check_smooth(options.smooth, head())


def members(options: TeacherOptions, tokenizer: Any, kind: Kind, head: Callable[[], Head]) -> list[Member]:
    """Files of every member, and the head of a fine-tuned member against the task's. Returns the members to fine-tune.

    head: of the task; asked only for a member that has a head.
    """
    unique = dict.fromkeys(options.models)
    return [member for member in unique if not _is_fitted(options, member, tokenizer, kind, head)]


def _is_fitted(options: TeacherOptions, member: Member, tokenizer: Any, kind: Kind, head: Callable[[], Head]) -> bool:
    """Whether the member's weights hold a head for the task. Raises UserError for a member that cannot be the teacher."""
    check_vocabulary(TEACHER, member.path, tokenizer, load.load_config(member.path, TEACHER))
    new = options.fit.mode == "always"
    trained = None if new else load.outline_trained(member.path, TEACHER, kind, options.labels, member.interaction)
    if trained is not None:
        alignment(heads.trained_head(trained.model.config, head()), head(), member.path)
    else:
        check_may_fit(member, options.fit)
    check_answers(trained, member.path, TEACHER, tokenizer, kind, member.interaction)
    return trained is not None


def same_fit(
    file: Path | None, resume: bool | str, step: StepSize, settings: dict[str, Any],
    settings_of: Callable[[Path], dict[str, Any] | None],
) -> None:  # fmt: skip
    """A resumed run whose teacher would be fine-tuned in another way, after which its checkpoint would be refused.

    file: the checkpoint that the run continues from. settings: of conf/teacher. settings_of: folder → settings of the run in it.
    """
    if file is None:
        return
    before = step_of(read(file)[KEY])
    changes = [] if before == step else [f"hardware makes steps of {step}, which were {before}"]
    earlier = next((each for folder in file.parents if (each := settings_of(folder)) is not None), None)
    if earlier is not None:
        old, new = of_teacher(earlier["teacher"]), of_teacher(settings)
        changes += [f"teacher.{k} is {new.get(k)}, which was {v}" for k, v in old.items() if new.get(k) != v]
    if changes:
        raise UserError(
            f"resume={resume}: the teacher of {file} was fine-tuned with other settings: {'; '.join(changes)}. "
            "It would be fine-tuned again, and the checkpoint refused. Set them back, or start anew with resume=false and "
            "another hydra.run.dir."
        )


def store(options: TeacherOptions, spec: Callable[[], ModelSpec]) -> None:
    """How a store keeps answers, and what a named store declares, as far as it is known before the teacher is loaded."""
    if not isinstance(options, Cached):
        return
    record = options.record(spec())
    if options.store is None:
        return
    folder = Path(options.store).expanduser()
    if folder.exists() and not folder.is_dir():
        raise UserError(f"teacher.store={options.store} is a file; give a folder.")
    if (folder / MANIFEST_FILE).is_file():
        manifest = Manifest.load(folder)
        teacher = spec()
        members = 1 if options.combine == CONCATENATED else len(options.members)
        expected = replace(
            manifest, tokenizer=teacher.vocabulary, head=teacher.head, members=members, **record._asdict()
        )
        manifest.compare(expected, folder, options.allow_mismatch)
