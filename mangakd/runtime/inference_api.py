"""POST /rerank and POST /embed, in the shape of Hugging Face's text-embeddings-inference (TEI), whose clients work here.

    /rerank {"query": "…", "texts": ["…", …], "raw_scores": false, "return_text": false}  →  [{"index": 1, "score": 0.98}, …]
    /embed  {"inputs": "…" or ["…", …], "normalize": true, "dimensions": 128}              →  [[0.1, …], …]

Ranks come best first. A score is the sigmoid of the model's number, or with raw_scores the number itself; late interaction
gives the number in any case, because it is a sum of cosines and no logit. `truncate` is true
unless it is false: then a text over the model's length is refused. Unknown keys are ignored, as TEI does. Errors are
{"error": "one sentence", "error_type": …} with TEI's statuses: 400 nothing is asked, 413 over a limit, 422 another type than the
key's, 424 the model cannot do it, 429 the queue is full.
Source: https://huggingface.github.io/text-embeddings-inference
"""

from dataclasses import dataclass
from typing import Any

import numpy as np

from mangakd.core.errors import UserError
from mangakd.runtime.answers import normalised, ranking, shortened, sigmoid
from mangakd.runtime.model import Model
from mangakd.runtime.question import Limits, Refused, check_object, kind_of, show
from mangakd.runtime.tokenise import Text

ERROR_TYPES = {424: "Backend", 429: "Overloaded", 503: "Unhealthy"}  # of other statuses: Validation
_TRUNCATION = {
    "truncate": {"type": "boolean", "nullable": True, "description": "false refuses a text that is over the length"},
    "truncation_direction": {"type": "string", "enum": ["Left", "Right"], "nullable": True},
}
_TEXTS = {"type": "array", "minItems": 1, "items": {"type": "string"}}
RERANK: dict[str, Any] = {
    "type": "object",
    "required": ["query", "texts"],
    "properties": {
        "query": {"type": "string"}, "texts": _TEXTS, "raw_scores": {"type": "boolean"}, "return_text": {"type": "boolean"},
        **_TRUNCATION,
    },
}  # fmt: skip
EMBED: dict[str, Any] = {
    "type": "object",
    "required": ["inputs"],
    "properties": {
        "inputs": {"oneOf": [{"type": "string"}, _TEXTS]}, "normalize": {"type": "boolean"},
        "dimensions": {"type": "integer", "minimum": 1, "nullable": True}, "prompt_name": {"type": "string", "nullable": True},
        **_TRUNCATION,
    },
}  # fmt: skip


@dataclass(frozen=True)
class Rerank:
    texts: list[Text]
    raw: bool
    shows: bool

    def answer(self, model: Model, rows: np.ndarray) -> Any:
        ranks = ranking(rows)
        scores = (rows if self.raw else sigmoid(rows))[:, 0]
        extras = [{"text": self.texts[rank["index"]][1]} if self.shows else {} for rank in ranks]
        return [
            {**rank, **text, "score": float(scores[rank["index"]])} for rank, text in zip(ranks, extras, strict=True)
        ]


@dataclass(frozen=True)
class Embed:
    texts: list[Text]
    normalize: bool
    dims: int | None

    def answer(self, model: Model, rows: np.ndarray) -> Any:
        rows = shortened(rows, self.dims)
        return (normalised(rows) if self.normalize else rows).tolist()


def rerank(content: Any, model: Model, limits: Limits) -> Rerank:
    check_object(content, '{"query": "…", "texts": ["…"]}')
    query = content.get("query")
    if not isinstance(query, str):
        raise Refused(422, f"query is {kind_of(query)}; send a string.")
    documents = strings(content, "texts", limits)
    check_length(query, "query", limits)
    pairs: list[Text] = [(query, document) for document in documents]
    try:
        model.check_query(query)
    except UserError as error:
        raise Refused(413, str(error)) from error
    _check_truncation(content, pairs, model, "texts")
    raw = flag(content, "raw_scores") or model.manifest.late is not None
    return Rerank(pairs, raw, flag(content, "return_text"))


def embed(content: Any, model: Model, limits: Limits) -> Embed:
    check_object(content, '{"inputs": ["…"]}')
    if isinstance(content.get("inputs"), str):
        content = {**content, "inputs": [content["inputs"]]}
    texts, name = strings(content, "inputs", limits), content.get("prompt_name")
    if name is not None and (not isinstance(name, str) or name not in model.manifest.prompts):
        names = ", ".join(model.manifest.prompts) or "none"
        raise Refused(422, f"prompt_name is {show(name)}; the prompts of this student are: {names}.")
    prompted: list[Text] = [*model.prompted(texts, name)]
    _check_truncation(content, prompted, model, "inputs")
    return Embed(prompted, flag(content, "normalize", True), dimensions(content, model))


def error(refusal: Refused) -> tuple[int, Any]:
    """The status and the content of the response."""
    kind = "Empty" if refusal.empty else ERROR_TYPES.get(refusal.status, "Validation")
    return refusal.status, {"error": str(refusal), "error_type": kind}


def dimensions(content: dict[str, Any], model: Model) -> int | None:
    """The dims to cut to. Raises Refused for more than the model has."""
    dims = content.get("dimensions")
    try:
        model.check_dims(dims)
    except UserError as error:
        raise Refused(422, f"dimensions is {show(dims)}; send a number from 1 to {model.width}.") from error
    return dims


def strings(content: dict[str, Any], key: str, limits: Limits) -> list[str]:
    """The texts under `key`. Raises Refused for what is no list of strings, and over a limit."""
    texts = content.get(key)
    if not isinstance(texts, list):
        raise Refused(422, f"{key} is {kind_of(texts)}; send a list of strings.")
    if not texts:
        raise Refused(400, f"{key} is empty; send one text or more.", empty=True)
    if len(texts) > limits.texts:
        raise Refused(413, f"{key} holds {len(texts):,} texts; send at most {limits.texts:,} at a time.")
    for i, text in enumerate(texts):
        if not isinstance(text, str):
            raise Refused(422, f"{key}[{i}] is {kind_of(text)}; send strings.")
        check_length(text, f"{key}[{i}]", limits)
    return texts


def check_length(text: str, name: str, limits: Limits) -> None:
    if len(text) > limits.characters:
        raise Refused(413, f"{name} has {len(text):,} characters; at most {limits.characters:,} are read.")


def flag(content: dict[str, Any], key: str, default: bool = False) -> bool:
    value = content.get(key)
    if not isinstance(value, bool | None):
        raise Refused(422, f"{key} is {show(value)}; send true or false.")
    return default if value is None else value


def _check_truncation(content: dict[str, Any], texts: list[Text], model: Model, key: str) -> None:
    """Raises Refused for truncate=false with a text that is cut, and for the side on which this model does not cut."""
    side, own = content.get("truncation_direction"), model.manifest.truncation_side
    if side is not None and (not isinstance(side, str) or side.lower() != own):
        raise Refused(422, f"truncation_direction is {show(side)}; this student cuts texts on the {own}.")
    if not flag(content, "truncate", True) and model.lengths(texts)[1]:
        raise Refused(
            413, f"{key} must have at most {model.manifest.max_length} tokens each; send truncate=true to cut them."
        )
