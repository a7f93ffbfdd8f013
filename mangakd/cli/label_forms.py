"""From the config of `label` to the form of what a provider is asked for."""

import logging
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from omegaconf import DictConfig, OmegaConf

from mangakd.core.errors import UserError, near
from mangakd.labelling.api.provider import Api
from mangakd.labelling.forms import Answers, Form, Rewrites, Turns
from mangakd.labelling.forms.expansions import Expansions
from mangakd.labelling.forms.label_names import LabelNames, label_names
from mangakd.labelling.forms.labels import Labels
from mangakd.labelling.forms.paraphrases import Paraphrases
from mangakd.labelling.forms.scores import Scores
from mangakd.labelling.forms.soft_labels import SoftLabels
from mangakd.labelling.provider import Embedder, Provider
from mangakd.labelling.templates import Template

if TYPE_CHECKING:
    from mangakd.labelling.embed import Embeddings

EMBEDDINGS = "embeddings"
SECTIONS: Mapping[str, tuple[str, ...]] = {
    "answers": ("system", "question"), "rewrites": ("rewriting",), "expansions": ("expanding",), "labels": ("labels",),
    "soft_labels": ("labels",), "scores": ("scoring",), "paraphrases": ("paraphrasing",), EMBEDDINGS: ("embedding",),
}  # fmt: skip
"""What is written → the entries of the config that say how."""
ANSWERS = ("letter", "name")
ALIKE = 3  # characters of two names that may be one token
log = logging.getLogger(__name__)


def reads_turns(config: DictConfig) -> bool:
    """Whether the provider is an encoder–decoder, which gets turns and no words about what is asked."""
    return str(config.provider.get("_target_")).endswith(".Seq2Seq")


def form_of(config: DictConfig) -> Form:
    """What the provider is asked for. Raises UserError for what it cannot write."""
    if config.writes not in SECTIONS:
        raise UserError(
            f"writes={config.writes} is unknown{near(config.writes, SECTIONS)} Known: {', '.join(SECTIONS)}."
        )
    if reads_turns(config):
        if config.writes != "rewrites":
            raise UserError(
                "provider=seq2seq reads the turns of conversations and writes rewrites: set writes=rewrites."
            )
        if config.prompt is not None:
            raise UserError(f"prompt={config.prompt}: provider=seq2seq reads turns, no prompt. Set provider.template.")
        return Turns()
    return _FORMS[config.writes](config)


def embeddings_of(config: DictConfig) -> "Embeddings":
    """Raises UserError for options that have no meaning for vectors."""
    from mangakd.labelling.embed import Embeddings  # loads torch

    for name in ("prompt", "schema"):
        if config[name] is not None:
            raise UserError(f"{name}={config[name]}: writes=embeddings asks no question. Set {name}=null.")
    return Embeddings(OmegaConf.to_container(config.embedding.prompts))  # type: ignore[arg-type]


def check_logprobs(provider: Provider) -> None:
    """Raises UserError for an API that gives no log-probabilities: each answer would be paid for and unusable."""
    if isinstance(provider, Api) and not getattr(provider.wire, "top_logprobs", 0):
        raise UserError(
            f"provider {provider.wire.name} gives no log-probabilities"
            f"{' with provider.top_logprobs=0' if provider.wire.name == 'openai' else ''}. Use another provider, or draw labels: "
            "writes=labels samples=10 temperature=1, which teacher=probabilities teacher.column=label reads as shares."
        )


def warn_of_ignored(config: DictConfig, default: DictConfig) -> None:
    """Warns of entries of other forms that differ from the default."""
    own = SECTIONS.get(config.writes, tuple(SECTIONS))
    for name in dict.fromkeys(name for names in SECTIONS.values() for name in names if name not in own):
        if config[name] != default[name]:
            log.warning("%s is ignored with writes=%s.", name, config.writes)
    if config.prompt is not None and config.writes == "rewrites" and config.rewriting != default.rewriting:
        log.warning("rewriting is ignored with prompt=%s.", config.prompt)


def _template(config: DictConfig, default: str) -> Template:
    return Template.of(str(config.prompt if config.prompt is not None else default))


def _answers(config: DictConfig) -> Form:
    return Answers(config.system, config.question, prompt=_given(config))


def _rewrites(config: DictConfig) -> Form:
    return Rewrites(**OmegaConf.to_container(config.rewriting), prompt=_given(config))  # type: ignore[arg-type]


def _given(config: DictConfig) -> Template | None:
    return None if config.prompt is None else Template.of(str(config.prompt))


def _expansions(config: DictConfig) -> Form:
    return Expansions(**config.expanding, prompt=_template(config, "expansions"))


def _labels(config: DictConfig) -> Form:
    return Labels(labels=_names(config, letters=False), prompt=_template(config, "labels"))


def _soft_labels(config: DictConfig) -> Form:
    """A model on this machine gives the probability of each name; an API that of a token."""
    on_this_machine = str(config.provider.get("_target_")).endswith(".Local")
    labels = _names(config, letters=not on_this_machine)
    beginnings = [name[:ALIKE].casefold() for name in labels.choices]
    if not on_this_machine and not labels.letters and len(set(beginnings)) < len(beginnings):
        log.warning(
            "labels.answer=name: some names begin alike, and a token that begins several is shared out by the next token of the "
            "answer alone; the rest of it is missing. labels.answer=letter has no such tokens."
        )
    return SoftLabels(
        labels=labels,
        prompt=_template(config, "labels"),
        least_mass=config.labels.least_mass,
    )


def _names(config: DictConfig, letters: bool) -> LabelNames:
    section: Any = OmegaConf.to_container(config.labels)
    answer = section["answer"]
    if answer not in (None, *ANSWERS):
        raise UserError(f"labels.answer={answer} must be one of {', '.join(ANSWERS)}, or null.")
    return label_names(
        section["names"], section["path"], section["column"], letters if answer is None else answer == "letter"
    )


def _scores(config: DictConfig) -> Form:
    return Scores(**config.scoring, prompt=_template(config, "scores"))


def _paraphrases(config: DictConfig) -> Form:
    section: Any = OmegaConf.to_container(config.paraphrasing)
    path = section.pop("encoder")
    encoder = None if path is None else _encoder(str(path))
    return Paraphrases(**section, encoder=encoder, prompt=_template(config, "paraphrases"))


def _encoder(path: str) -> Embedder:
    from mangakd.labelling.encoder import Encoder  # loads torch

    return Encoder(path=path, key="paraphrasing.encoder")


_FORMS: Mapping[str, Callable[[DictConfig], Form]] = {
    "answers": _answers, "rewrites": _rewrites, "expansions": _expansions, "labels": _labels, "soft_labels": _soft_labels,
    "scores": _scores, "paraphrases": _paraphrases,
}  # fmt: skip
