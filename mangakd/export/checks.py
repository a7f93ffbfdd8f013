"""Raises UserError for a student's folder that cannot be exported: its head, its labels, its pairs."""

from pathlib import Path
from typing import Any

from mangakd.core.errors import UserError
from mangakd.core.spec import Head
from mangakd.models.heads import class_of, has_class
from mangakd.models.pooling import Pooling
from mangakd.models.sentence_transformers import SETTINGS, Settings

KEY = "export.student"
_WRITES = ("CausalLM", "LMHeadModel", "ConditionalGeneration")  # in the names of architectures that generate text
_PRETRAINED = ("MaskedLM", "PreTraining")  # pretraining heads; an encoder is exported without such a head


def check_pairs(pairs: bool, head: Head, settings: Settings, folder: Path) -> None:
    """Raises UserError for pairs that the export could not serve as sentence-transformers does."""
    if pairs and (head.kind, head.outputs) != ("score", 1):
        raise UserError(
            f"{KEY}={folder} reads pairs of texts and answers with {head}; pairs are exported with a score alone. Set "
            "pairs=false for a model of single texts."
        )
    if pairs and settings.default_prompt and settings.prompts[settings.default_prompt]:
        raise UserError(
            f"{KEY}={folder} puts the prompt {settings.default_prompt!r} before its pairs, which the export does not: remove "
            f"default_prompt_name from {SETTINGS} if the model does not need it."
        )


def check_late(pooling: Pooling | None, pairs: bool | None, folder: Path) -> None:
    """Raises UserError for options of other students."""
    if pooling is not None or pairs is False:
        raise UserError(
            f"{KEY}={folder} interacts late: it scores a query with a document by a vector for each token. Leave pooling and "
            "pairs=false out."
        )


def check_exports(config: Any, folder: Path) -> None:
    """Raises UserError for a model that is neither an encoder nor an encoder–decoder that writes."""
    if not writes(config):
        check_encodes(config, folder)


def check_encodes(config: Any, folder: Path) -> None:
    """Raises UserError for a model that generates text."""
    architectures = " ".join(config.architectures or ())
    if config.is_encoder_decoder or any(word in architectures for word in _WRITES):
        raise UserError(
            f"{KEY}={folder} is a {config.model_type} that generates text; encoders can be exported, and encoder–decoders with "
            "their head (T5, BART, Marian). A language model has other variants: export=[merged,gguf]."
        )


def writes(config: Any) -> bool:
    """Whether a config is that of an encoder–decoder with the head that writes."""
    if not config.is_encoder_decoder or not has_class(config, "tokens"):
        return False
    return class_of(config, "tokens").__name__ in (config.architectures or ())


def check_no_head(config: Any, folder: Path) -> None:
    """Raises UserError unless a folder without a classification head is an encoder, alone or with its pretraining head."""
    check_encodes(config, folder)
    head = " ".join(config.architectures or ()).partition("For")[2]
    if head and head not in _PRETRAINED:
        raise UserError(
            f"{KEY}={folder} has a head for {head}. Exportable models have a head for sequence classification (one label, "
            "several labels, or regression) or no head (embeddings)."
        )


def check_names(head: Head, folder: Path) -> None:
    """Raises UserError for equal names, and for `LABEL_3`, transformers' default: a server would return it to its callers."""
    if len(set(head.names)) < len(head.names):
        raise UserError(
            f"{KEY}={folder} has two labels of one name in config.json (id2label); answers would be ambiguous."
        )
    if head.kind == "labels" and not head.names:
        raise UserError(
            f"{KEY}={folder} has no label names: id2label of its config.json says LABEL_0 to LABEL_{head.outputs - 1}. Write "
            "their names there, and into label2id, in the order of the model's outputs."
        )
