"""POST /rewrite: what a student that writes makes of each text.

    POST /rewrite {"texts": ["I asked about the order. when was it shipped?"]}  →  {"rewrites": ["when was the order shipped?"]}

Limits and errors are those of /predict (question.py).
"""

from dataclasses import dataclass
from typing import Any

import numpy as np

from mangakd.core.errors import near
from mangakd.runtime.model import Model
from mangakd.runtime.question import Limits, Refused, check_object, check_texts, show
from mangakd.runtime.tokenise import Text

SCHEMA: dict[str, Any] = {
    "type": "object",
    "required": ["texts"],
    "additionalProperties": False,
    "properties": {
        "texts": {
            "type": "array", "minItems": 1, "items": {"type": "string"},
            "examples": [["I asked about the order. when was it shipped?"]],
        }
    },
}  # fmt: skip


@dataclass(frozen=True)
class Rewriting:
    texts: list[Text]

    def answer(self, model: Model, rows: np.ndarray) -> Any:
        return {"rewrites": model.texts(rows)}


def rewriting(content: Any, model: Model, limits: Limits) -> Rewriting:
    check_object(content, '{"texts": ["…"]}')
    for key in content:
        if key not in SCHEMA["properties"]:
            raise Refused(422, f"unknown key {show(key)}{near(key[:20], SCHEMA['properties'])}")
    return Rewriting(check_texts(content.get("texts"), limits))
