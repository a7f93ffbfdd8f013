"""Load tokenizers, configs and models from where models/location.py finds them.

`from_pretrained` does the work; this file says clearly what is wrong when it cannot, whether the head was fine-tuned, and
which weights and which vocabulary were read.
"""

import hashlib
import json
import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Any
from weakref import WeakKeyDictionary

import torch
from transformers import AutoTokenizer

from mangakd.core.errors import UserError
from mangakd.core.spec import Head, Kind, ModelSpec
from mangakd.models import heads, language, late, seq2seq
from mangakd.models.attention import keep_soft_cap
from mangakd.models.configs import read_config
from mangakd.models.encoder import Encoder
from mangakd.models.folder import check_tokenizer_files
from mangakd.models.late import AS_IT_IS, Interaction
from mangakd.models.location import source_of
from mangakd.models.outline import Outline, outline_of
from mangakd.models.quiet import quiet
from mangakd.models.sentence_transformers import lower_case_first, read_settings
from mangakd.models.token_head import is_trained
from mangakd.runtime.tokenise import read_as_text

# Read by a tokenizer to know it: spaces, case, accents, scripts, digits, and the special tokens around a text.
_PROBE = "Don't ship the Café box to 東京, 12.50 €\tplease!"
_POSITIONS = ("position_embeddings", "embed_positions", "wpe")
log = logging.getLogger(__name__)


def load_config(path: str, key: str = "teacher.path", interaction: Interaction = AS_IT_IS) -> Any:
    """The config of a folder or hub id, as models/configs reads it, with its settings of late interaction."""
    with source_of(path, key) as where:
        stored = late.of_folder(where)
        config = interaction.mark(late.mark(read_config(where, f"{key}={path}"), stored and stored[0]))
        return seq2seq.keep_tables(config) if config.is_encoder_decoder else config


def load_tokenizer(path: str, key: str = "teacher.path", kind: Kind = "labels") -> Any:
    """A fast tokenizer that reads special tokens in a text as text. Raises UserError where the folder holds none.

    kind: of the head of its model. Language models often have no padding token: as masks hide it, that of the end becomes it. A
    model with an encoder and a decoder needs both: the decoder of many begins with padding, and a target ends with the other.
    """
    config = load_config(path, key)
    with source_of(path, key) as where:
        check_tokenizer_files(Path(where), path, key)
        tokenizer = AutoTokenizer.from_pretrained(where, config=config, split_special_tokens=True)
        if read_settings(where).lower_case and tokenizer.is_fast:
            lower_case_first(tokenizer)
    if not tokenizer.is_fast or len(tokenizer) < 100:
        raise UserError(
            f"{key}={path} holds no usable tokenizer (tokenizer.json or vocab.txt); save one beside the model with "
            "tokenizer.save_pretrained."
        )
    if kind == "tokens" and config.is_encoder_decoder and tokenizer.eos_token_id is None:
        raise UserError(
            f"the tokenizer of {key}={path} has no token that ends a text, with which a target ends; set eos_token in its "
            "tokenizer_config.json (</s> for T5, BART and Marian)."
        )
    if tokenizer.pad_token_id is None and kind == "tokens" and not config.is_encoder_decoder:
        tokenizer.pad_token = tokenizer.eos_token
    if tokenizer.pad_token_id is None:
        raise UserError(
            f"the tokenizer of {key}={path} has no padding token; set pad_token in its tokenizer_config.json."
        )
    read_as_text(tokenizer.backend_tokenizer)
    return tokenizer


def shape(config: Any, key: str, kind: Kind = "labels") -> Any:
    """The model of a config on the meta device. Raises UserError for sizes that no model can have, and for no language model."""
    if kind == "tokens":
        of_tokens(config).check_config(config, key)
    try:
        with torch.device("meta"):
            model = heads.auto(kind, config).from_config(config)
            return seq2seq.untie(model) if seq2seq.writes(model) and seq2seq.stores_head(config) else model
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

    Every encoder has a head of vectors: its pooling. A language model without its head is refused: a new one would be of no use.

    The weights decide, not `architectures` of config.json. kind: of the head that is looked for; the model of labels and that of
    a score are the same. names: of its outputs, where config.json has none or other ones. Raises UserError where the head has
    another number of outputs than names, and where config.json says that there is a head and the weights hold none.
    """
    if kind in ("vector", "tokens"):
        # Pooling has no weights that could be untrained.
        return outline_for(path, heads.of_kind(kind, load_config(path, key)), key)
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
    """A model with this head, unread: the head of the folder if it has this shape, else with random weights.

    Raises UserError for a folder of another kind of model, or without the head's weights, where a language model is asked for.
    """
    config = load_config(path, key, interaction)
    config.update(heads.entries(head))
    return _outline(config, head, path, key)


def trained_classifier(path: str, key: str, names: Sequence[str] | None = None) -> Any | None:
    """The model of `outline_trained` in fp32."""
    outline = outline_trained(path, key, names=names)
    return None if outline is None else read_model(outline, path, key)


def read_model(outline: Outline, path: str, key: str, dtype: torch.dtype = torch.float32) -> Any:
    """The model of an outline. Legacy `.bin` files are read with torch.load(weights_only=True).

    Raises UserError for a language model whose logits cannot be computed from its final states.
    """
    with quiet(), source_of(path, key):
        model = outline.read(dtype)
        if outline.head.kind == "tokens":
            of_tokens(model.config).check_logits(model, f"{key}={path}")
        return model


def of_tokens(config: Any) -> Any:
    """The module that checks models which answer with tokens, of this kind."""
    return seq2seq if config.is_encoder_decoder else language


def _outline(config: Any, head: Head, path: str, key: str) -> Outline:
    if head.kind == "tokens":
        heads.check_source(head, config, f"{key}={path}")
        of_tokens(config).check_config(config, f"{key}={path}")
    with quiet(), source_of(path, key) as where:
        outline = outline_of(config, heads.own(head, config), where, path, key)
    if head.kind == "tokens":
        of_tokens(config).check_head(outline.model, outline.info, f"{key}={path}")
    return outline


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
    own = heads.own(head, model.config)
    if head.kind == "tokens" and not head.source:
        language.prepare(model)
    keep_soft_cap(model)
    spec = ModelSpec.from_config(model.config, name, own, vocabulary_digest(tokenizer))
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
