"""`python scripts/label.py data.path=… out=…`: a teacher answers the rows of a file, as training data."""

from dataclasses import replace
from pathlib import Path

from omegaconf import DictConfig, OmegaConf

from mangakd.cli.label_config import cache_of, provider_of, refuse_budget, rows_of
from mangakd.cli.label_forms import EMBEDDINGS, check_logprobs, form_of, warn_of_ignored
from mangakd.cli.logs import start_logging
from mangakd.cli.searchpath import CONF
from mangakd.core.errors import UserError
from mangakd.core.invocation import command
from mangakd.labelling.api.provider import Api
from mangakd.labelling.label import Options, dry_run, label
from mangakd.labelling.provider import Provider
from mangakd.labelling.schemas import Schema
from mangakd.models.sampling import Sampling
from mangakd.training.callbacks.progress import noted_progress, progress


def run(config: DictConfig) -> None:
    """Raises UserError for prompts, options or a file of answers that do not fit."""
    start_logging(None)
    if config.out is None:
        raise UserError(
            f"out is not set: {command('label')} provider.path=<model> data.path=<prompts> out=answers.jsonl"
        )
    warn_of_ignored(config, OmegaConf.load(CONF / "label.yaml"))  # type: ignore[arg-type]
    if config.writes == EMBEDDINGS:
        from mangakd.cli.label_embeddings import write_vectors  # loads torch

        write_vectors(config)
    else:
        _label(config)


def _label(config: DictConfig) -> None:
    out = Path(str(config.out)).expanduser()
    if out.suffix.lower() not in (".jsonl", ".ndjson"):
        raise UserError(f"out={out} must end with .jsonl: answers are written line by line.")
    sampling = Sampling(float(config.temperature), float(config.top_p), config.max_new_tokens, config.min_new_tokens)
    form = form_of(config)
    schema = None if config.schema is None else Schema.read(str(config.schema))
    options = Options(sampling, config.samples, config.seed, form, config.cut, config.thought, schema)
    rows = rows_of(config, form)
    provider = provider_of(config)
    if not isinstance(provider, Provider):
        raise UserError("the provider gives vectors: set writes=embeddings, or choose a provider that writes texts.")
    if form.reads_logprobs:
        check_logprobs(provider)
    if isinstance(provider, Api):
        if config.min_new_tokens:
            raise UserError(f"min_new_tokens={config.min_new_tokens} is for models on this machine: leave it out.")
        provider = _with_budget(provider, config)
        if config.dry_run:
            print(dry_run(rows, provider, options, out))
            return
    else:
        refuse_budget(config)
    label(rows, provider, options, out, cache_of(config), progress, Path(str(config.data.path)), noted_progress)


def _with_budget(api: Api, config: DictConfig) -> Api:
    ledger = None if config.ledger is None else Path(str(config.ledger)).expanduser()
    return replace(api, ledger=ledger, max_cost=config.max_cost, max_requests=config.max_requests, batch=config.batch)
