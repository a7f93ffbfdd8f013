"""A run in Weights & Biases: its config, one curve over all stages, its scores, its report and its student.

Not Lightning's WandbLogger: that one puts all runs of a sweep's process into one W&B run, starts another W&B run when a killed
run is resumed, and ends the training when W&B cannot be reached. docs/how-to/tracking.md says what users see.
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
FORMER = {"run": "online", "dryrun": "offline"}  # names that W&B still takes
REPORT = ("report.html", "report.md", "config.yaml", "metrics.json")


def keep_in_wandb(loggers: Sequence[Any], metrics: Mapping[str, float]) -> None:
    """The end of a run: its scores, report and student go to the W&B run among `loggers`, if there is one."""
    for logger in loggers:
        if isinstance(logger, WandbRun):
            logger.conclude(metrics)


class WandbRun(Logger):
    """folder: the run's. mode, project, entity, group, name, job_type, tags: W&B's words; None leaves them to W&B.

    upload_student: whether student/ becomes an artifact, besides the report. patience: seconds that the end waits for uploads.
    W&B is asked for nothing until something is logged, and by the first rank alone. What it fails in is told and left to
    `wandb sync`: it never ends the training. Raises UserError for another mode, for a project that cannot be one, and when it
    is to be online and no API key is known.
    """

    def __init__(
        self, folder: str, project: str, mode: str | None = None, entity: str | None = None, group: str | None = None,
        name: str | None = None, job_type: str | None = None, tags: Sequence[str] = (), upload_student: bool = True,
        patience: float = 600,
    ) -> None:  # fmt: skip
        import wandb  # here: told by preflight where it is not installed

        super().__init__()
        self._folder, self._patience, self._upload_student = Path(folder), patience, upload_student
        self._place: dict[str, Any] = {"project": project, "entity": entity, "job_type": job_type, "tags": list(tags)}
        self._called = {"name": name, "group": group}
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
        """W&B drops rows whose own count goes back, as steps do in a resumed run: so `step` is a column, the count is ours."""
        row = metrics if step is None else {**metrics, "step": step}
        self._tell(lambda run: run.log(row, step=self._rows, commit=True))
        self._rows += 1

    def finalize(self, status: str) -> None:
        """A stage has ended. The W&B run goes on, unless training failed or was stopped."""
        if status != "success" and self._run is not None:
            self._tell(lambda run: run.finish(exit_code=1))
            self._over = True

    def conclude(self, metrics: Mapping[str, float]) -> None:
        """metrics: those of metrics.json, for the summary. Uploads what is to be kept, and waits for it."""
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
            student.add_dir(str(self._folder / "student"), policy="immutable")  # sent from there, not copied first
            run.log_artifact(student)
        run.finish()

    def _tell(self, do: Callable[[Any], object]) -> None:
        if self._over:
            return
        try:
            self._run = self._run or self._started()
            do(self._run)
        except Exception as error:
            self._over = True
            place = self._run.settings.sync_dir if self._run is not None else self._folder / "logs" / "wandb"
            log.warning(
                "W&B failed (%s: %s). Nothing more is logged to it; the run itself goes on unharmed. Send what was logged with\n"
                "  wandb sync --include-online %s", type(error).__name__, error, place,
            )  # fmt: skip

    def _started(self) -> Any:
        """A new W&B run, or the one that this folder belongs to."""
        import wandb

        logs = self._folder / "logs"
        logs.mkdir(parents=True, exist_ok=True)
        file = logs / "wandb.json"
        kept = json.loads(file.read_text()) if file.is_file() else {}
        called = {key: value or kept.get(key) for key, value in self._called.items()}
        # Offline, W&B does not know how many rows earlier starts have logged; no row is smaller than a byte.
        self._rows = sum(start.stat().st_size for start in logs.glob("wandb/*run-*/*.wandb"))
        settings = wandb.Settings(
            finish_timeout=self._patience,
            finish_timeout_raises=True,
            x_transaction_log_flush_interval=1.0,  # seconds of rows that a SIGKILL may lose; W&B's own are 15
        )
        options = {
            "id": kept.get("id"),
            "resume": "allow",
            "dir": str(logs),
            "reinit": "finish_previous",
            "settings": settings,
        }
        run = _reached(self._mode, {**options, **self._place, **called})
        file.write_text(json.dumps({"id": run.id, **called}, indent=2) + "\n")
        self._rows = max(self._rows, run.step)
        run.define_metric("step")
        run.define_metric("*", step_metric="step")
        return run


def _reached(mode: str, options: dict[str, Any]) -> Any:
    """The W&B run; logged offline where W&B cannot be reached or refuses it, as a teacher may have been trained meanwhile."""
    import wandb

    try:
        return wandb.init(mode=mode, **options)  # type: ignore[arg-type]
    except Exception as error:
        if mode == "offline":
            raise
        run = wandb.init(mode="offline", **options)
        place = run.settings.sync_dir
        log.warning(
            "W&B cannot be used online (%s). This run is logged offline. Send it later with\n  wandb sync %s",
            error,
            place,
        )
        return run


def _check(mode: str, project: str) -> None:
    """What can be known without the network."""
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

    wandb.setup(wandb.Settings(mode="online"))  # else login looks at WANDB_MODE, over which the config wins
    found = "no API key is known"
    try:
        if wandb.login(prompt=False, verify=False):
            return
    except wandb.errors.Error as error:
        found = str(error)
    raise UserError(
        f"logger=wandb is online and {found}. Log in with `wandb login`, set WANDB_API_KEY, or log without an account with "
        "WANDB_MODE=offline (send it later with `wandb sync`)."
    )
