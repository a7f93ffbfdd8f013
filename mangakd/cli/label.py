"""`python scripts/label.py data.path=… out=…`: a teacher writes answers or rewrites to the rows of a file, as training data."""

from pathlib import Path

from hydra.utils import instantiate
from omegaconf import DictConfig, OmegaConf

from mangakd.cli.logs import start_logging
from mangakd.core.errors import UserError
from mangakd.core.invocation import command
from mangakd.labelling.forms import Answers, Form, Rewrites, Turns
from mangakd.labelling.label import Options, label, read_prompts
from mangakd.models.sampling import Sampling
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
    form = _form(config)
    options = Options(sampling, config.samples, config.seed, form, config.cut)
    rows = read_prompts(config.data.path, OmegaConf.to_container(config.data.columns), form)  # type: ignore[arg-type]
    if OmegaConf.is_missing(config.provider, "path"):
        raise UserError("provider.path is not set: give the model that writes, a folder, a hub id or embedded_lm.")
    provider = instantiate(config.provider, _convert_="all")
    label(rows, provider, options, out, Path(config.paths.cache).expanduser(), progress, Path(str(config.data.path)))


def _form(config: DictConfig) -> Form:
    """What the provider is asked for."""
    reads_turns = str(config.provider.get("_target_")).endswith(".Seq2Seq")
    if config.writes == "answers" and not reads_turns:
        return Answers(config.system, config.question)
    if config.writes == "rewrites":
        return Turns() if reads_turns else Rewrites(**OmegaConf.to_container(config.rewriting))  # type: ignore[arg-type]
    if config.writes == "answers":
        raise UserError("provider=seq2seq reads the turns of conversations and writes rewrites: set writes=rewrites.")
    raise UserError(f"writes={config.writes} must be answers or rewrites.")
