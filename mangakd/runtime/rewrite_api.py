"""POST /rewrite: what a student that writes makes of each text, or of each conversation.

    POST /rewrite {"texts": ["a text", …]}                                           →  {"rewrites": ["its rewrite", …]}
    POST /rewrite {"texts": [["where is my order?", "On its way.", "since when?"]]}  →  {"rewrites": ["since when is my order …"]}

A conversation is the list of its turns, the oldest first; the last one is rewritten. Limits and errors are those of /predict
(question.py).
"""

from dataclasses import dataclass
from typing import Any

import numpy as np

from mangakd.core.errors import UserError, near
from mangakd.runtime.model import Model
from mangakd.runtime.question import Limits, Refused, check_object, check_texts, show
from mangakd.runtime.tokenise import Text

SCHEMA: dict[str, Any] = {
    "type": "object",
    "required": ["texts"],
    "additionalProperties": False,
    "properties": {
        "texts": {
            "type": "array", "minItems": 1, "examples": [[["where is my order?", "On its way.", "since when?"]]],
            "items": {"oneOf": [{"type": "string"}, {"type": "array", "minItems": 1, "items": {"type": "string"}}]},
        }
    },
}  # fmt: skip


@dataclass(frozen=True)
class Rewriting:
    texts: list[Text]

    def answer(self, model: Model, rows: np.ndarray) -> Any:
        return {"rewrites": model.texts(rows)}


def rewriting(content: Any, model: Model, limits: Limits) -> Rewriting:
    """The limit of texts also holds for the turns of each."""
    check_object(content, '{"texts": ["…"]}')
    for key in content:
        if key not in SCHEMA["properties"]:
            raise Refused(422, f"unknown key {show(key)}{near(key[:20], SCHEMA['properties'])}")
    texts = content.get("texts")
    if not isinstance(texts, list):
        return Rewriting(check_texts(texts, limits))
    check_texts(["" if isinstance(text, list) else text for text in texts], limits)
    for i, text in enumerate(texts):
        if isinstance(text, list):
            check_texts(text, limits, f"texts[{i}]")
            _check_turns(text, i, model, limits)
    return Rewriting([text if isinstance(text, str) else tuple(text) for text in texts])


def _check_turns(turns: list[str], i: int, model: Model, limits: Limits) -> None:
    """Raises Refused for a student that does not read turns, and for turns that are too long together."""
    try:
        model.check_turns()
    except UserError as error:
        raise Refused(422, f"texts[{i}] is a list. {error}") from error
    if (size := sum(map(len, turns))) > limits.characters:
        raise Refused(422, f"texts[{i}] has {size:,} characters; at most {limits.characters:,} are read.")
