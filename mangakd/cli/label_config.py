"""From the config of `label` to its provider, its rows and its cache, for texts and for vectors."""

from pathlib import Path

from hydra.utils import instantiate
from omegaconf import DictConfig, OmegaConf

from mangakd.core.errors import UserError
from mangakd.data.rows import Rows
from mangakd.labelling.forms import Reads
from mangakd.labelling.label import read_prompts
from mangakd.labelling.provider import Embedder, Provider


def rows_of(config: DictConfig, form: Reads) -> Rows:
    return read_prompts(config.data.path, OmegaConf.to_container(config.data.columns), form)  # type: ignore[arg-type]


def refuse_budget(config: DictConfig) -> None:
    if budget := [name for name in ("ledger", "max_cost", "max_requests", "batch", "dry_run") if config[name]]:
        raise UserError(f"{budget[0]}={config[budget[0]]} is for providers behind an API: leave it out.")


def provider_of(config: DictConfig) -> Provider | Embedder:
    if OmegaConf.is_missing(config.provider, "model"):
        raise UserError("provider.model is not set: give the provider's name of the model, such as gpt-4.1-mini.")
    if OmegaConf.is_missing(config.provider, "path"):
        raise UserError("provider.path is not set: give the model that writes, a folder, a hub id or embedded_lm.")
    provider: Provider | Embedder = instantiate(config.provider, _convert_="all")
    return provider


def cache_of(config: DictConfig) -> Path:
    return Path(config.paths.cache).expanduser()
