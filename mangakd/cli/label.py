"""`python scripts/label.py data.path=… out=…`: a teacher writes answers to the prompts of a file, as data for task=response."""

from pathlib import Path

from hydra.utils import instantiate
from omegaconf import DictConfig, OmegaConf

from mangakd.cli.logs import start_logging
from mangakd.core.errors import UserError
from mangakd.core.invocation import command
from mangakd.labelling.label import Options, label, read_prompts
from mangakd.models.generation import Sampling
from mangakd.training.callbacks.progress import progress


def run(config: DictConfig) -> None:
    """Raises UserError for prompts, options or a file of answers that do not fit."""
    start_logging(None)
    if config.out is None:
        raise UserError(
            f"out is not set: {command('label')} provider.path=<model> data.path=<prompts> out=answers.jsonl"
        )
    out = Path(str(config.out)).expanduser()
    if out.suffix.lower() not in (".jsonl", ".ndjson"):
        raise UserError(f"out={out} must end with .jsonl: answers are written line by line.")
    sampling = Sampling(float(config.temperature), float(config.top_p), config.max_new_tokens)
    options = Options(sampling, config.samples, config.seed, config.system, config.question, config.cut)
    rows = read_prompts(config.data.path, OmegaConf.to_container(config.data.columns))  # type: ignore[arg-type]
    if OmegaConf.is_missing(config.provider, "path"):
        raise UserError("provider.path is not set: give the model that writes, a folder, a hub id or embedded_lm.")
    provider = instantiate(config.provider, _convert_="all")
    label(rows, provider, options, out, Path(config.paths.cache).expanduser(), progress)
