"""A run that is done is not done again: `resume=auto` in its folder gives its score. So a killed sweep makes what is missing."""

from typing import Any

from omegaconf import OmegaConf

from mangakd.cli.setup import Setup
from mangakd.cli.sweep import sweeping
from mangakd.cli.values import flat
from mangakd.core.errors import UserError
from mangakd.core.run_folder import metrics_of

# Where a run is kept, how it is watched and where it is computed: not what it is.
OUTSIDE = ("resume", "logger", "paths", "gate", "hardware", "checkpoint", "plan", "validate")


def score(setup: Setup) -> float | None:
    """The validation score of the finished run in the folder, or None where there is something to train.

    Raises UserError where a sweep is resumed with other settings: runs are numbered, so each would go on in another's folder.
    """
    kept = setup.folder / "config.yaml"
    if setup.config.resume != "auto" or not kept.is_file():
        return None
    before, now = _settings(OmegaConf.to_container(OmegaConf.load(kept))), _settings(setup.resolved())
    changed = [key for key in before | now if before.get(key) != now.get(key)]
    if changed and sweeping():
        told = ", ".join(f"{key} {before.get(key)} → {now.get(key)}" for key in changed[:3])
        raise UserError(
            f"{setup.folder} holds another run of the sweep ({told}). Give the sweep as it was typed, or another hydra.sweep.dir."
        )
    metrics = metrics_of(setup.folder)
    if changed or not metrics:
        return None
    found = metrics[f"val/{setup.task.monitor}"]
    print(f"finished before: validation {setup.task.monitor} {found:.4f}, {setup.folder}", flush=True)
    return found


def _settings(config: Any) -> dict[str, Any]:
    kept = {key: value for key, value in config.items() if key not in OUTSIDE}
    if not any(isinstance(value, dict) for value in kept.get("export", {}).values()):
        kept.pop("export", None)  # options of an export that is not made
    return flat(kept)
