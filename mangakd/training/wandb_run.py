"""A run in Weights & Biases: its config, one curve over all stages, its scores, its report and its student.

Lightning's WandbLogger does not fit: it puts all runs of a sweep's process into one W&B run, starts a new W&B run for a resumed
run, and ends the training if W&B is unreachable. docs/how-to/tracking.md describes the result.
"""

import json
import logging
from argparse import Namespace
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from lightning.pytorch.loggers import Logger

from mangakd.core import ranks
from mangakd.core.errors import UserError

log = logging.getLogger(__name__)
MODES = ("online", "offline", "disabled")
FORMER = {"run": "online", "dryrun": "offline"}  # old names that W&B still accepts
REPORT = ("report.html", "report.md", "config.yaml", "metrics.json")


def keep_in_wandb(loggers: Sequence[Any], metrics: Mapping[str, float]) -> None:
    """Upload scores, report and student at the end of a run, if `loggers` include a W&B run."""
    for logger in loggers:
        if isinstance(logger, WandbRun):
            logger.conclude(metrics)


class WandbRun(Logger):
    """folder: the run's. mode, project, entity, group, name, job_type, tags: W&B's words; None leaves them to W&B.

    upload_student: whether student/ becomes an artifact, besides the report. patience: seconds to wait for uploads at the end.
    Only the first rank uses W&B, and only from the first log on. A failure of W&B is logged and never ends the training;
    `wandb sync` uploads the data later. Raises UserError for an unknown mode, for an invalid project, and for mode online without
    an API key.
    """

    def __init__(
        self, folder: str, project: str, mode: str | None = None, entity: str | None = None, group: str | None = None,
        name: str | None = None, job_type: str | None = None, tags: Sequence[str] = (), upload_student: bool = True,
        patience: float = 600,
    ) -> None:  # fmt: skip
        import wandb  # a late import: preflight reports a missing package

        super().__init__()
        self._folder, self._patience, self._upload_student = Path(folder), patience, upload_student
        self._place: dict[str, Any] = {"project": project, "entity": entity, "job_type": job_type, "tags": list(tags)}
        self._names = {"name": name, "group": group}
        self._mode = FORMER.get(mode or "", mode) or wandb.setup().settings.mode
        self._run: Any = None
        self._rows = 0
        self._over = self._mode == "disabled" or not ranks.is_first()
        if not self._over:
            _check(self._mode, project)

    @property
    def name(self) -> str:
        return self._place["project"]

    @property
    def version(self) -> str | None:
        return self._run.id if self._run is not None else None

    def log_hyperparams(self, params: dict[str, Any] | Namespace, *args: Any, **kwargs: Any) -> None:
        self._tell(lambda run: run.config.update(params, allow_val_change=True))

    def log_metrics(self, metrics: dict[str, float], step: int | None = None) -> None:
        """Log a row under a count of rows. W&B drops rows whose count decreases, as steps do in a resumed run."""
        row = metrics if step is None else {**metrics, "step": step}
        self._tell(lambda run: run.log(row, step=self._rows, commit=True))
        self._rows += 1

    def finalize(self, status: str) -> None:
        """End a stage. The W&B run stays open, unless training failed or was stopped."""
        if status != "success" and self._run is not None:
            self._tell(lambda run: run.finish(exit_code=1))
            self._over = True

    def conclude(self, metrics: Mapping[str, float]) -> None:
        """Upload summary, report and student, and wait for the uploads. metrics: of metrics.json, for the summary."""
        self._tell(lambda run: self._hand_over(run, dict(metrics)))
        self._over = True

    def _hand_over(self, run: Any, metrics: dict[str, float]) -> None:
        import wandb

        run.summary.update(metrics)
        report = wandb.Artifact(f"report-{run.id}", "report")
        for file in filter(Path.is_file, (self._folder / name for name in REPORT)):
            report.add_file(str(file))
        run.log_artifact(report)
        if self._upload_student:
            student = wandb.Artifact(f"student-{run.id}", "model", metadata=metrics)
            student.add_dir(str(self._folder / "student"), policy="immutable")  # upload without a copy
            run.log_artifact(student)
        run.finish()

    def _tell(self, do: Callable[[Any], object]) -> None:
        if self._over:
            return
        try:
            self._run = self._run or self._start()
            do(self._run)
        except Exception as error:
            self._over = True
            place = self._run.settings.sync_dir if self._run is not None else self._folder / "logs" / "wandb"
            log.warning(
                "W&B failed (%s: %s). The run goes on without W&B. Upload the data logged so far with\n"
                "  wandb sync --include-online %s", type(error).__name__, error, place,
            )  # fmt: skip

    def _start(self) -> Any:
        """Start a new W&B run, or resume the W&B run of this folder."""
        import wandb

        logs = self._folder / "logs"
        logs.mkdir(parents=True, exist_ok=True)
        file = logs / "wandb.json"
        previous = json.loads(file.read_text()) if file.is_file() else {}
        names = {key: value or previous.get(key) for key, value in self._names.items()}
        # Offline, W&B does not know the number of earlier rows. The bytes of earlier logs are an upper bound.
        self._rows = sum(start.stat().st_size for start in logs.glob("wandb/*run-*/*.wandb"))
        settings = wandb.Settings(
            finish_timeout=self._patience,
            finish_timeout_raises=True,
            x_transaction_log_flush_interval=1.0,  # a SIGKILL loses the rows of one second; W&B's default is 15
        )
        options = {
            "id": previous.get("id"),
            "resume": "allow",
            "dir": str(logs),
            "reinit": "finish_previous",
            "settings": settings,
        }
        run = _connect(self._mode, {**options, **self._place, **names})
        file.write_text(json.dumps({"id": run.id, **names}, indent=2) + "\n")
        self._rows = max(self._rows, run.step)
        run.define_metric("step")
        run.define_metric("*", step_metric="step")
        return run


def _connect(mode: str, options: dict[str, Any]) -> Any:
    """Start the W&B run. If W&B is unreachable or refuses, log offline: the run may already have fine-tuned a teacher."""
    import wandb

    try:
        return wandb.init(mode=mode, **options)  # type: ignore[arg-type]
    except Exception as error:
        if mode == "offline":
            raise
        run = wandb.init(mode="offline", **options)
        place = run.settings.sync_dir
        log.warning(
            "W&B cannot be used online (%s). This run is logged offline. Upload it later with\n  wandb sync %s",
            error,
            place,
        )
        return run


def _check(mode: str, project: str) -> None:
    """Check the settings without the network."""
    import wandb

    if mode not in MODES:
        raise UserError(f"logger.wandb.mode={mode} must be one of {', '.join(MODES)}; without it, WANDB_MODE is read.")
    try:
        wandb.Settings(project=project)
    except Exception as error:
        raise UserError(
            f"logger.wandb.project={project} cannot be the name of a W&B project: give up to 128 characters, none of / \\ # ? % :"
        ) from error
    if mode == "online":
        _check_login()


def _check_login() -> None:
    import wandb

    wandb.setup(wandb.Settings(mode="online"))  # otherwise login reads WANDB_MODE, but the config has priority
    reason = "no API key is known"
    try:
        if wandb.login(prompt=False, verify=False):
            return
    except wandb.errors.Error as error:
        reason = str(error)
    raise UserError(
        f"logger=wandb is online and {reason}. Log in with `wandb login`, set WANDB_API_KEY, or log without an account with "
        "WANDB_MODE=offline (upload it later with `wandb sync`)."
    )
