"""`python scripts/label.py data.path=… out=…`: a teacher answers the rows of a file, as training data."""

from dataclasses import replace
from pathlib import Path

from hydra.utils import instantiate
from omegaconf import DictConfig, OmegaConf

from mangakd.cli.label_forms import EMBEDDINGS, check_logprobs, form_of, warn_of_ignored
from mangakd.cli.logs import start_logging
from mangakd.cli.searchpath import CONF
from mangakd.core.errors import UserError
from mangakd.core.invocation import command
from mangakd.data.rows import Rows
from mangakd.labelling.api.provider import Api
from mangakd.labelling.forms import Reads
from mangakd.labelling.label import Options, dry_run, label, read_prompts
from mangakd.labelling.provider import Embedder, Provider
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


def rows_of(config: DictConfig, form: Reads) -> Rows:
    return read_prompts(config.data.path, OmegaConf.to_container(config.data.columns), form)  # type: ignore[arg-type]


def refuse_budget(config: DictConfig) -> None:
    if budget := [name for name in ("ledger", "max_cost", "max_requests", "batch", "dry_run") if config[name]]:
        raise UserError(f"{budget[0]}={config[budget[0]]} is for providers behind an API: leave it out.")


def _with_budget(api: Api, config: DictConfig) -> Api:
    ledger = None if config.ledger is None else Path(str(config.ledger)).expanduser()
    return replace(api, ledger=ledger, max_cost=config.max_cost, max_requests=config.max_requests, batch=config.batch)


def provider_of(config: DictConfig) -> Provider | Embedder:
    if OmegaConf.is_missing(config.provider, "model"):
        raise UserError("provider.model is not set: give the provider's name of the model, such as gpt-4.1-mini.")
    if OmegaConf.is_missing(config.provider, "path"):
        raise UserError("provider.path is not set: give the model that writes, a folder, a hub id or embedded_lm.")
    provider: Provider | Embedder = instantiate(config.provider, _convert_="all")
    return provider


def cache_of(config: DictConfig) -> Path:
    return Path(config.paths.cache).expanduser()
