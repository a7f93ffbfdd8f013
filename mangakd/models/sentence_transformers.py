"""Folders of sentence-transformers beside their weights: prompts, lengths, and the activation of a cross-encoder.

    modules.json                       the modules in their order; models/pooling.py reads and writes those that make a vector
    config_sentence_transformers.json  model_type, prompts, similarity; activation_fn of a CrossEncoder
    sentence_bert_config.json          max_seq_length, do_lower_case
    config.json                        matryoshka_dimensions, the name under which vLLM reads them

sentence-transformers makes activations without their arguments and gives documents an empty prompt unless its name is
`document`. So an activation with arguments is written as a call (models/activations.py), which sentence-transformers refuses
instead of computing another one, and a prompt `passage` is written as `document`, too.
Source: https://www.sbert.net/docs/package_reference/base/modules.html
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, cast, get_args

from tokenizers import normalizers
from torch import nn

from mangakd.core.errors import UserError
from mangakd.models.activations import activation, activation_call
from mangakd.models.folder import model_file, read_object, write_json

MODULES, SETTINGS, LENGTHS = "modules.json", "config_sentence_transformers.json", "sentence_bert_config.json"
CONFIG, DIMS = "config.json", "matryoshka_dimensions"
SIMILARITIES = ("cosine", "dot", "euclidean", "manhattan", "MaxSim")
Kind = Literal["SentenceTransformer", "CrossEncoder", "ColBERT"]
COLBERT: Kind = "ColBERT"  # of PyLate; models/late.py
_DOCUMENTS = ("passage", "corpus")  # names that people give to the prompt of documents


@dataclass(frozen=True)
class Settings:
    """What a folder says beside its weights.

    prompts: name → text that stands before each text. default_prompt: the name of the prompt that is used unless another one is
    asked for. max_length: in tokens; None leaves it to the tokenizer. lower_case: texts are lower-cased first. similarity: of two
    vectors. dims: sizes to which vectors have learned to be cut (Matryoshka).
    """

    prompts: Mapping[str, str] = field(default_factory=dict)
    default_prompt: str | None = None
    max_length: int | None = None
    lower_case: bool = False
    similarity: str = "cosine"
    dims: tuple[int, ...] = ()

    def __post_init__(self) -> None:
        if self.default_prompt is not None and self.default_prompt not in self.prompts:
            raise UserError(
                f"the default prompt {self.default_prompt!r} is none of the prompts: {', '.join(self.prompts) or 'none'}."
            )
        if self.similarity not in SIMILARITIES:
            raise UserError(f"there is no similarity {self.similarity!r}; known: {', '.join(SIMILARITIES)}.")


def kind_of(folder: str | Path) -> Kind | None:
    """None for a folder that does not say that sentence-transformers loads it."""
    kind = read_object(folder, SETTINGS).get("model_type")
    if kind in get_args(Kind):
        return cast(Kind, kind)
    if model_file(folder, MODULES):
        return "SentenceTransformer"
    return "CrossEncoder" if _activation_in_config(folder) else None


def read_settings(folder: str | Path) -> Settings:
    """Raises UserError for values that are none, with their file."""
    content, lengths = read_object(folder, SETTINGS), read_object(folder, LENGTHS)
    prompts, length = content.get("prompts") or {}, lengths.get("max_seq_length")
    dims = _read_dims(folder)
    if not isinstance(prompts, dict) or not all(isinstance(text, str | None) for text in prompts.values()):
        raise UserError(f"{folder}/{SETTINGS}: prompts must be texts by name; it holds {str(prompts)[:60]}.")
    if length is not None and (not isinstance(length, int) or isinstance(length, bool) or length < 1):
        raise UserError(f"{folder}/{LENGTHS}: max_seq_length={length!r} is no number of tokens.")
    try:
        return Settings(
            {name: text or "" for name, text in prompts.items()}, content.get("default_prompt_name"), length,
            bool(lengths.get("do_lower_case")), content.get("similarity_fn_name") or "cosine", dims,
        )  # fmt: skip
    except UserError as error:
        raise UserError(f"{folder}/{SETTINGS}: {error}") from error


def read_activation(folder: str | Path) -> nn.Module:
    """The activation of a cross-encoder's score; the sigmoid, where the folder names none. Raises UserError for other code."""
    call = read_object(folder, SETTINGS).get("activation_fn") or _activation_in_config(folder)
    return nn.Sigmoid() if call is None else activation(str(call), folder)


def write_settings(settings: Settings, folder: Path, kind: Kind, **more: Any) -> None:
    """Write prompts, similarity and lengths beside the modules that lie in `folder`."""
    prompts = dict(settings.prompts)
    for name in _DOCUMENTS:
        if name in prompts:
            prompts.setdefault("document", prompts[name])
    content = {"model_type": kind, "prompts": prompts, "default_prompt_name": settings.default_prompt, **more}
    if kind == "SentenceTransformer":
        content["similarity_fn_name"] = settings.similarity
    write_json(folder / SETTINGS, content)
    write_json(folder / LENGTHS, {"max_seq_length": settings.max_length, "do_lower_case": settings.lower_case})
    _write_dims(settings.dims, folder)


def write_cross_encoder(settings: Settings, score: nn.Module, folder: Path) -> None:
    """Write what makes a cross-encoder of a classifier of one output in `folder`. score: the activation.

    config.json names the activation, too: versions before 6 and other servers read it there. Raises UserError for an activation
    that cannot be read back.
    """
    call = activation_call(score)
    write_json(
        folder / MODULES, [{"idx": 0, "name": "0", "path": "", "type": "sentence_transformers.models.Transformer"}]
    )
    write_settings(settings, folder, "CrossEncoder", activation_fn=call)
    lengths = read_object(folder, LENGTHS)
    write_json(folder / LENGTHS, {**lengths, "transformer_task": "sequence-classification"})
    config = read_object(folder, "config.json")
    write_json(folder / "config.json", {**config, "sentence_transformers": {"activation_fn": call}})


def lower_case_first(tokenizer: Any) -> None:
    """Let a fast tokenizer lower-case its texts first, in place, as do_lower_case demands."""
    backend = tokenizer.backend_tokenizer
    if '"Lowercase"' not in backend.to_str():
        before = [] if backend.normalizer is None else [backend.normalizer]
        backend.normalizer = normalizers.Sequence([normalizers.Lowercase(), *before])


def _read_dims(folder: str | Path) -> tuple[int, ...]:
    dims = read_object(folder, CONFIG).get(DIMS) or []
    if not isinstance(dims, list) or not all(isinstance(size, int) and size > 0 for size in dims):
        raise UserError(f"{folder}/{CONFIG}: {DIMS} must be a list of whole numbers; it holds {str(dims)[:60]}.")
    return tuple(dims)


def _write_dims(dims: tuple[int, ...], folder: Path) -> None:
    """A student made of its teacher's layers has the teacher's config: what that says of dimensions is not the student's."""
    config = {name: value for name, value in read_object(folder, CONFIG).items() if name != DIMS}
    if dims or DIMS in read_object(folder, CONFIG):
        write_json(folder / CONFIG, {**config, **({DIMS: list(dims)} if dims else {})})


def _activation_in_config(folder: str | Path) -> str | None:
    """config.json of a CrossEncoder of versions 4 and 5, and of those before."""
    config = read_object(folder, "config.json")
    entry = config.get("sentence_transformers")
    call = entry.get("activation_fn") if isinstance(entry, dict) else None
    return call or config.get("sbert_ce_default_activation_function")
