"""The judge of a run on disk, from its config.yaml: reports are made again without the task, its models or torch."""

from pathlib import Path

from hydra.utils import instantiate
from omegaconf import DictConfig, OmegaConf

from mangakd.core.errors import UserError
from mangakd.evaluation.judge import Judge
from mangakd.tasks.classification.judge import ClassificationJudge


def of_run(folder: Path) -> Judge:
    """Of a run, or of the first run of a sweep that has begun. Runs of before judges were configured were classification."""
    return _of_configs([folder, *sorted(folder.glob("*/"))])


def of_runs(folders: list[Path]) -> Judge:
    """The judge that the runs share. Raises UserError where they have different judges."""
    judges = [of_run(folder) for folder in folders]
    for folder, judge in zip(folders, judges, strict=True):
        if type(judge) is not type(judges[0]):
            raise UserError(
                f"{folders[0]} was scored by {type(judges[0]).__name__}, {folder} by {type(judge).__name__}: their scores "
                "cannot be compared. Give runs of one task."
            )
    return judges[0]


def of_task(task: DictConfig) -> Judge:
    return instantiate(task.judge)


def _of_configs(folders: list[Path]) -> Judge:
    for folder in folders:
        file = folder / "config.yaml"
        if file.is_file() and OmegaConf.select(config := OmegaConf.load(file), "task.judge") is not None:
            return of_task(config.task)
    return ClassificationJudge()
