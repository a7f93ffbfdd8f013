"""`python scripts/curate.py data.path=… out=…`: filters, personal data, a judge and a split make rows a data set."""

from dataclasses import replace
from pathlib import Path
from typing import Any

from hydra.utils import instantiate
from omegaconf import DictConfig, OmegaConf

from mangakd.cli.logs import start_logging
from mangakd.core.errors import UserError
from mangakd.core.invocation import command
from mangakd.labelling.curate.curate import Options, curate
from mangakd.labelling.curate.judge import Judge, Rubric
from mangakd.labelling.curate.source import Reading
from mangakd.training.callbacks.progress import progress

VERDICTS, LEDGER = ".judge.jsonl", ".judge.ledger.sqlite"  # beside the folder, so that other settings use them, too
BUDGET = ("ledger", "max_cost", "max_requests")


def run(config: DictConfig) -> None:
    """Raises UserError for rows, options or a folder that do not fit."""
    start_logging(None)
    if config.out is None:
        raise UserError(f"out is not set: {command('curate')} data.path=answers.jsonl out=<folder>")
    out = Path(str(config.out)).expanduser()
    filters = {name: dict(_plain(each)) for name, each in config.filters.items() if each is not None}
    on = {str(name): each for name, each in filters.items() if each.pop("use", True)}
    options = Options(
        reading=_reading(config),
        filters={name: instantiate(each, _convert_="all") for name, each in on.items()},
        off=[str(name) for name in config.filters if name not in on],
        shares=_plain(config.split),
        judge=_judge(config, out),
        seed=config.seed,
        format=config.format,
    )
    curate(config.data.path, out, options, Path(config.paths.cache).expanduser(), progress)


def _reading(config: DictConfig) -> Reading:
    columns = {name: column for name, column in _plain(config.data.columns).items() if column != name}
    return Reading(config.reads, tuple(_plain(config.texts)), columns, config.data.several_labels)


def _judge(config: DictConfig, out: Path) -> Judge | None:
    if not config.judge.use:
        return None
    options = {name: value for name, value in _plain(config.judge).items() if name not in ("use", *BUDGET)}
    rubric = Rubric(**{**options, "scale": tuple(options["scale"])})
    missing = [str(name) for name in config.provider if OmegaConf.is_missing(config.provider, name)]
    if missing:
        raise UserError(f"provider.{missing[0]} is not set: give the model that judges, or set judge.use=false.")
    provider = _within_budget(instantiate(config.provider, _convert_="all"), config, out)
    return Judge(provider, rubric, out.with_name(out.name + VERDICTS))


def _within_budget(provider: Any, config: DictConfig, out: Path) -> Any:
    """A provider behind an API with a ledger, which keeps what is paid for also where the command is killed."""
    budget = {name: config.judge[name] for name in BUDGET if config.judge[name] is not None}
    if not provider.remembers:
        if budget:
            raise UserError(f"judge.{min(budget)} is for providers behind an API: leave it out.")
        return provider
    ledger = Path(str(budget.pop("ledger", out.with_name(out.name + LEDGER)))).expanduser()
    return replace(provider, ledger=ledger, **budget)


def _plain(value: Any) -> Any:
    return OmegaConf.to_container(value, resolve=True)
