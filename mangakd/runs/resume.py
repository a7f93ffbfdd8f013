"""Where a run continues: the score of a run that is finished, or the checkpoint of a run that was interrupted.

A finished run is not repeated: with `resume=auto` in its folder it returns its score. So a killed sweep trains only the
missing runs.
"""

from pathlib import Path

from mangakd.core.errors import UserError
from mangakd.core.run_folder import metrics_of
from mangakd.runs.given import Given
from mangakd.runs.settings import of_result
from mangakd.training.checkpoints import damage, newest


def finished_score(given: Given, monitor: str) -> float | None:
    """The validation score of the finished run in the folder; None where there is something to train.

    Raises UserError where a sweep is resumed with other settings: runs are numbered, so a run would continue in the folder of
    another run.
    """
    earlier = given.settings_of(given.folder) if given.resume == "auto" else None
    if earlier is None:
        return None
    before, now = of_result(earlier), of_result(given.settings(None))
    changed = [key for key in before | now if before.get(key) != now.get(key)]
    if changed and given.sweep:
        changes = ", ".join(f"{key} {before.get(key)} → {now.get(key)}" for key in changed[:3])
        raise UserError(
            f"{given.folder} holds another run of the sweep ({changes}). Give the sweep as it was typed, or another "
            "hydra.sweep.dir."
        )
    metrics = metrics_of(given.folder)
    if changed or not metrics:
        return None
    score = metrics[f"val/{monitor}"]
    print(f"finished before: validation {monitor} {score:.4f}, {given.folder}", flush=True)
    return score


def checkpoint_of(folder: Path, resume: bool | str) -> Path | None:
    """The whole checkpoint that a run continues from; None where there is none. checks/folders.py reports a damaged one."""
    if resume is False:
        return None
    if resume != "auto":
        path = Path(str(resume))
        return path if path.is_file() and not damage(path) else None
    folders = [folder / "checkpoints", *folder.glob("stages/*/checkpoints")]
    return next((file for each in folders if (file := newest(each)) is not None), None)
