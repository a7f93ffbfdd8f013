"""Kinds of head and the models of transformers that have them. No other file knows Hugging Face's auto classes.

A kind has a row in HEADS. Its checkpoints are told by their weights (models/load.py) and their config.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from torch import Tensor
from transformers import AutoModel, AutoModelForCausalLM, AutoModelForSeq2SeqLM, AutoModelForSequenceClassification

from mangakd.core.errors import UserError
from mangakd.core.spec import Head, Kind
from mangakd.models.late import of_config
from mangakd.models.pooling import VectorHead, of_folder, read_head
from mangakd.models.token_head import TokenHead, head_of

AUTO: dict[Kind, Any] = {
    "labels": AutoModelForSequenceClassification,
    "score": AutoModelForSequenceClassification,
    "vector": AutoModel,
    "tokens": AutoModelForCausalLM,
}
"""The class whose `from_pretrained` and `from_config` give a model with such a head; that of a vector is the pooling's.

`auto` also knows models of late interaction: their score comes from the states of an encoder (models/token_head.py); and models
with an encoder and a decoder (models/seq2seq.py), whose tokens follow a source: their class is AFTER_SOURCE."""
AFTER_SOURCE = AutoModelForSeq2SeqLM
# Heads of these tasks may have the weights of a sequence classifier, name by name.
_OTHER_TASKS = ("ForTokenClassification", "ForMultipleChoice", "ForQuestionAnswering")


@dataclass(frozen=True)
class HeadRow:
    """architecture: ends the name of the classes that have such a head. entries: config entries that give a model this head.

    fields: what the model returns → fields of `Outputs`.
    """

    architecture: str
    entries: Callable[[Head], dict[str, Any]]
    fields: Callable[[Any], Mapping[str, Tensor]]


def named(names: Sequence[str]) -> dict[str, Any]:
    """Config entries that name the outputs of a head."""
    return {
        "num_labels": len(names),
        "id2label": dict(enumerate(names)),
        "label2id": {name: i for i, name in enumerate(names)},
    }


def _classifier(head: Head) -> dict[str, Any]:
    return {**(named(head.names) if head.names else {"num_labels": head.outputs}), "problem_type": head.problem_type}


def _logits(raw: Any) -> Mapping[str, Tensor]:
    return {"logits": raw.logits}


def _states(raw: Any) -> Mapping[str, Tensor]:
    """Of every token (B, T, H): the encoder's pooling turns them into the vector."""
    return {"vector": raw.last_hidden_state}


_SEQUENCE = HeadRow("ForSequenceClassification", _classifier, _logits)
HEADS: dict[Kind, HeadRow] = {
    "labels": _SEQUENCE,
    "score": _SEQUENCE,
    "vector": HeadRow("Model", lambda _: {}, _states),
    "tokens": HeadRow("ForCausalLM", lambda _: {}, lambda raw: {"tokens": raw.last_hidden_state}),
}


def made_as(kind: Kind, config: Any) -> Kind:
    """The kind of head that a model of `config` is made with for a head of `kind`."""
    return "vector" if of_config(config) is not None else kind


def auto(kind: Kind, config: Any) -> Any:
    """The auto class of transformers for a model of `config` with a head of `kind`."""
    return AFTER_SOURCE if kind == "tokens" and config.is_encoder_decoder else AUTO[made_as(kind, config)]


def of_kind(kind: Kind, config: Any) -> Head:
    """The head of this kind that a model of `config` can have, where only the kind is asked for."""
    return Head(kind, 0, source=kind == "tokens" and bool(config.is_encoder_decoder))


def entries(head: Head) -> dict[str, Any]:
    """Config entries that give a model this head."""
    return HEADS[head.kind].entries(head)


def has_class(config: Any, kind: Kind) -> bool:
    """Whether transformers has such a head on the architecture of `config`."""
    return type(config) in auto(kind, config)._model_mapping


def states_head(kind: Kind, config: Any) -> VectorHead | TokenHead | None:
    """What answers from the states of an encoder, with the weights in the config's folder; None for heads of transformers."""
    if of_config(config) is not None:
        return head_of(config)
    return read_head(config.name_or_path) if kind == "vector" else None


def own(head: Head, config: Any, source: str = "") -> Head:
    """The head that a model of `config` gets for a task's. source: the key that names the model, with its value, for messages.

    A vector is as wide as the model and its pooling make it. A vocabulary has as many tokens as the model embeds, which may be
    more than its tokenizer has. Raises UserError for tokens of the other kind of model, with a source or without.
    """
    if not head.is_models_own:
        return head
    check_source(head, config, source or config.name_or_path or config.model_type)
    of_vectors = head.kind == "vector"
    return replace(
        head, outputs=of_folder(config.name_or_path).width(config.hidden_size) if of_vectors else config.vocab_size
    )


def check_source(head: Head, config: Any, source: str) -> None:
    """Raises UserError where tokens shall follow a source and the model has no encoder for it, and the reverse.

    source: `key=path`, for messages.
    """
    if head.kind != "tokens" or head.source == bool(config.is_encoder_decoder):
        return
    if head.source:
        raise UserError(
            f"{source} is a {config.model_type}, which has no encoder and decoder, and this task's models read a source and "
            "write a target. Give a model such as a T5, BART or Marian folder; a decoder (Llama, Qwen) learns with task=response."
        )
    raise UserError(
        f"{source} is a {config.model_type}, which has an encoder and a decoder; language models have a decoder alone. Give a "
        "causal language model (a decoder), such as a Llama, Qwen or Mistral folder; an encoder–decoder learns with task=rewrite."
    )


def class_of(config: Any, kind: Kind) -> Any:
    """The class of transformers with such a head on the architecture of `config`."""
    return auto(kind, config)._model_mapping[type(config)]


def claims(config: Any, kind: Kind) -> bool:
    """Whether a config says that its weights hold a head of this kind."""
    return any(HEADS[kind].architecture in name for name in config.architectures or [])


def claims_other(config: Any) -> bool:
    """Whether a config says that its weights hold a head that only looks like a sequence classifier's."""
    return any(task in name for name in config.architectures or [] for task in _OTHER_TASKS)


def trained_head(config: Any, task: Head | None = None) -> Head:
    """The head of a trained sequence classifier, read from its config; a model of vectors has the head that its pooling makes,
    one of late interaction a score, a language model its vocabulary.

    task: the head that is looked for; it decides between one label and several if the config has no `problem_type`. Without it
    transformers' own rule holds. Raises UserError for a `problem_type` that transformers does not know.
    """
    if task is not None and task.is_models_own:
        return own(task, config)
    if of_config(config) is not None:
        return Head("score", 1)
    names = tuple(str(config.id2label[i]) for i in range(config.num_labels))
    stated = getattr(config, "problem_type", None)
    if stated is None and task is not None and task.kind == "labels":
        stated = task.problem_type
    try:
        return Head.of_problem(stated, names)
    except KeyError as error:
        raise UserError(f"config.json has problem_type={stated!r}, which transformers does not know.") from error
