"""`label writes=embeddings`: the vectors of the texts of a file."""

from pathlib import Path

from omegaconf import DictConfig

from mangakd.cli.label_config import cache_of, provider_of, refuse_budget, rows_of
from mangakd.cli.label_forms import embeddings_of
from mangakd.core.errors import UserError
from mangakd.labelling import remembered
from mangakd.labelling.api.embeddings import NO_TEXT, ApiEncoder
from mangakd.labelling.api.estimate import estimate, words
from mangakd.labelling.embed import check_out, embed
from mangakd.labelling.provider import Embedder
from mangakd.training.callbacks.progress import progress


def write_vectors(config: DictConfig) -> None:
    """Raises UserError for a provider without vectors, and for a file that cannot hold them."""
    out, form = Path(str(config.out)).expanduser(), embeddings_of(config)
    check_out(out)
    rows = rows_of(config, form)
    provider = provider_of(config)
    if not isinstance(provider, Embedder):
        raise UserError(
            f"{type(provider).__name__} gives no vectors: writes=embeddings needs provider=encoder or provider=openai_embeddings."
        )
    if isinstance(provider, ApiEncoder):
        if config.batch:
            raise UserError("batch=true asks for texts, not for vectors: leave it out.")
        provider = _with_budget(provider, config, out)
        if config.dry_run:
            api, requests = provider.api, provider.requests(form.texts(rows))
            print(words(estimate(api, requests, NO_TEXT, remembered.ledger_path(api, out)), api))
            return
    else:
        refuse_budget(config)
    embed(rows, provider, form, out, cache_of(config), progress, Path(str(config.data.path)))


def _with_budget(provider: ApiEncoder, config: DictConfig, out: Path) -> ApiEncoder:
    ledger = out.with_name(out.name + remembered.SUFFIX) if config.ledger is None else Path(str(config.ledger))
    return provider.within(ledger.expanduser(), config.max_cost, config.max_requests)
