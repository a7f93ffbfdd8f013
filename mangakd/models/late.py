"""Late interaction (ColBERT): whether a model reads a query and a document apart, and what stands around their texts.

Folders are those of PyLate: modules.json lists the encoder and a Dense that reads each token, config_sentence_transformers.json
has the rest. In memory the config of a transformers model has the settings under ENTRY, so that they go where the config goes.

models/token_head.py has the score. Source: Khattab and Zaharia 2020, arXiv:2004.12832 (ColBERT); Chaffin and Sourty 2025,
arXiv:2508.03555 (PyLate).
"""

import string
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path
from typing import Any

from mangakd.core.errors import UserError, near
from mangakd.models.folder import model_file, read_json, read_object
from mangakd.models.pooling import PYLATE, Dense, dense_of
from mangakd.models.sentence_transformers import COLBERT, MODULES, SETTINGS

ENTRY = "late_interaction"
TOKENS = "token_embeddings"  # how sentence-transformers calls the states between two modules
_CHOICES = ("cross", "late")


@dataclass(frozen=True)
class Late:
    """dims: of a token's vector. query_prefix, document_prefix: a token of the vocabulary that stands before each text, such as
    `[unused0]`; "" for none. query_length: a shorter query gets mask tokens up to it, whose vectors count, too (ColBERT's query
    augmentation); 0 for none. attend: whether the other tokens of the query see these. skip: tokens of a document that count for
    nothing, such as punctuation.

    Raises UserError for values of another type.
    """

    dims: int = 128
    query_prefix: str = ""
    document_prefix: str = ""
    query_length: int = 0
    attend: bool = False
    skip: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        object.__setattr__(self, "skip", tuple(self.skip) if isinstance(self.skip, list | tuple) else self.skip)
        for name, kind in _TYPES.items():
            if type(value := getattr(self, name)) is not kind:
                raise UserError(f"{name}={value!r} must be of type {kind.__name__}.")
        if self.dims < 1 or self.query_length < 0:
            raise UserError(f"dims={self.dims} must be 1 or more, and query_length={self.query_length} 0 or more.")

    def __str__(self) -> str:
        """For messages: `{dims: 128, query_prefix: '[unused0]'}`, without what is off."""
        return f"{{{', '.join(f'{name}: {value!r}' for name, value in asdict(self).items() if value)}}}"


_TYPES = {each.name: type(each.default) for each in fields(Late)}


@dataclass(frozen=True)
class Interaction:
    """How a run wants a model to read a query and a document. late: None as its folder says. options: of `Late`, which replace
    those of the folder."""

    late: bool | None = None
    options: tuple[tuple[str, Any], ...] = ()

    @classmethod
    def of(cls, value: Any, key: str) -> "Interaction":
        """value: null, cross, late, or options of late interaction by name. Raises UserError for another one."""
        if value is None or value in _CHOICES:
            return cls(None if value is None else value == "late")
        if not isinstance(value, Mapping):
            raise UserError(f"{key}={value} must be null, {', '.join(_CHOICES)}, or {{dims: 128, …}}.")
        if unknown := [name for name in value if name not in _TYPES]:
            raise UserError(f"{key}.{unknown[0]} is unknown{near(unknown[0], _TYPES)} Known: {', '.join(_TYPES)}.")
        try:
            late = Late(**value)
        except UserError as error:
            raise UserError(f"{key}: {error}") from error
        return cls(True, tuple((name, getattr(late, name)) for name in sorted(value)))

    def mark(self, config: Any) -> Any:
        """The config, with the settings that this choice gives it."""
        settings = of_config(config)
        if self.late is not None:
            settings = replace(settings or Late(), **dict(self.options)) if self.late else None
        return mark(config, settings)


AS_IT_IS = Interaction()


def reads(late: Late | None) -> str:
    """For messages."""
    return "both texts at once" if late is None else f"each text alone {late}"


def mark(config: Any, settings: Late | None) -> Any:
    """The config of transformers, with these settings."""
    if settings is not None:
        setattr(config, ENTRY, {**asdict(settings), "skip": list(settings.skip)})
    elif hasattr(config, ENTRY):
        delattr(config, ENTRY)  # an entry of a config.json that its folder does not bear out
    return config


def of_config(config: Any) -> Late | None:
    """None for a model that reads both texts at once."""
    content = getattr(config, ENTRY, None)
    return content and Late(**content)


def of_folder(where: str | Path) -> tuple[Late, Dense] | None:
    """Settings and linear layer of a folder or hub id; None where it says nothing of late interaction.

    Raises UserError for modules that mangakd does not know.
    """
    file, settings = model_file(where, MODULES), read_object(where, SETTINGS)
    modules = read_json(file) if file else []
    try:
        kinds, paths = (
            zip(*[(str(entry["type"]), str(entry["path"])) for entry in modules], strict=True) if modules else ((), ())
        )
    except (TypeError, KeyError) as error:
        raise UserError(f"{file} must be a list of modules, each with `type` and `path`.") from error
    names = [kind.rpartition(".")[2] for kind in kinds]
    plain = names == ["Transformer", "Dense"] and not paths[0]
    own = settings.get("model_type") == COLBERT or any(kind.startswith(PYLATE) for kind in kinds)
    if not own and not (plain and read_object(where, f"{paths[1]}/config.json").get("module_input_name") == TOKENS):
        return None
    if not plain:
        raise UserError(
            f"{where} interacts late, and {MODULES} lists {', '.join(names) or 'nothing'}; known are an encoder beside "
            f"{MODULES} (Transformer) and one Dense."
        )
    dense = dense_of(where, paths[1], TOKENS)
    length = settings.get("query_length", 32) if settings.get("do_query_expansion", True) else 0
    try:
        late = Late(
            dense.outputs, settings.get("query_prefix", "[Q] "), settings.get("document_prefix", "[D] "), length,
            bool(length and settings.get("attend_to_expansion_tokens")), settings.get("skiplist_words", list(string.punctuation)),
        )  # fmt: skip
    except UserError as error:
        raise UserError(f"{where}/{SETTINGS}: {error}") from error
    return late, dense
