"""Parses a JSON body as a question to the model and checks the limits. The HTTP service and the Lambda handler share it.

    POST /predict {"texts": ["where is my order?"], "top": 3}  →  {"predictions": [{"label": …, "probability": …, …}]}

`top` is optional; without it the answer shows all labels. `Refused` says in one sentence what is wrong with a body, and has the
HTTP status: 400 no JSON in UTF-8, 413 too many bytes, 422 JSON that is no question or exceeds a limit. The shapes of other APIs
are in inference_api.py, openai_api.py and rewrite_api.py.
"""

import json
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np

from mangakd.core.errors import UserError, near
from mangakd.runtime.model import Model
from mangakd.runtime.tokenise import Text

# The schema for /docs. `question` checks a body; a test checks that both agree.
SCHEMA: dict[str, Any] = {
    "type": "object",
    "required": ["texts"],
    "additionalProperties": False,
    "properties": {
        "texts": {"type": "array", "minItems": 1, "items": {"type": "string"}, "examples": [["where is my order?"]]},
        "top": {"type": "integer", "minimum": 1, "description": "how many probabilities to show; all if left out"},
    },
}


class Refused(UserError):
    """A refused question. status: the HTTP status of the response. empty: it asks about nothing, which some APIs say apart."""

    def __init__(self, status: int, message: str, empty: bool = False):
        super().__init__(message)
        self.status, self.empty = status, empty


@dataclass(frozen=True)
class Limits:
    """Limits of one question. texts: their number. characters: of each text. body: bytes."""

    texts: int = 64
    characters: int = 20_000
    body: int = 1_000_000


class Question(Protocol):
    """texts: what the model computes. answer: its rows (N, C) → the content of the response."""

    @property
    def texts(self) -> list[Text]: ...

    def answer(self, model: Model, rows: np.ndarray) -> Any: ...


@dataclass(frozen=True)
class Prediction:
    texts: list[Text]
    top: int | None = None

    def answer(self, model: Model, rows: np.ndarray) -> Any:
        return {"predictions": model.answers(rows, self.top)}


def parse(body: bytes, limits: Limits) -> Any:
    """The JSON of a body. Raises Refused."""
    check_size(len(body), limits)
    if not body:
        raise Refused(400, "the body is empty; send an object in JSON.")
    try:
        return json.loads(body.decode("utf-8"))  # json.loads(body) would also guess UTF-16 and UTF-32
    except UnicodeDecodeError as error:
        raise Refused(400, f"the body is no UTF-8: {error.reason} at byte {error.start}.") from error
    except (ValueError, RecursionError) as error:  # also for deep nesting and huge integers
        raise Refused(400, f"the body is no JSON: {str(error)[:200]}.") from error


def check_size(size: int, limits: Limits) -> None:
    if size > limits.body:
        raise Refused(413, f"the body is larger than {limits.body:,} bytes; send fewer texts at a time.")


def question(content: Any, model: Model, limits: Limits) -> Prediction:
    """Check a parsed body. Raises Refused."""
    check_object(content, '{"texts": ["…"]}')
    for key in content:
        if key not in SCHEMA["properties"]:
            raise Refused(422, f"unknown key {show(key)}{near(key[:20], SCHEMA['properties'])}")
    return Prediction(check_texts(content.get("texts"), limits), _top(content.get("top")))


def check_object(content: Any, example: str) -> None:
    if not isinstance(content, dict):
        raise Refused(422, f"the body is {kind_of(content)}; send an object: {example}.")


def check_texts(texts: Any, limits: Limits, name: str = "texts") -> list[Text]:
    """Raises Refused for what is no list of strings, and over a limit."""
    if not isinstance(texts, list):
        raise Refused(422, f"{name} is {kind_of(texts)}; send a list of strings.")
    if not 1 <= len(texts) <= limits.texts:
        raise Refused(422, f"{name} holds {len(texts):,} texts; send 1 to {limits.texts:,} at a time.")
    for i, text in enumerate(texts):
        if not isinstance(text, str):
            raise Refused(422, f"{name}[{i}] is {kind_of(text)}; send strings.")
        if len(text) > limits.characters:
            raise Refused(422, f"{name}[{i}] has {len(text):,} characters; at most {limits.characters:,} are read.")
    return texts


def _top(top: Any) -> int | None:
    if top is not None and (not isinstance(top, int) or isinstance(top, bool) or top < 1):
        raise Refused(422, f"top is {show(top)}; send a number of labels from 1 on, or leave it out.")
    return None if top is None else min(top, 1_000_000)  # numpy takes no larger integers than 64 bits


def kind_of(value: Any) -> str:
    """The type of a value, in JSON's words."""
    names = {dict: "an object", list: "a list", str: "a string", bool: "a boolean", type(None): "missing or null"}
    return names.get(type(value), "a number")


def show(value: Any) -> str:
    """A short and printable form of any value: nothing nested, no huge number, ASCII only."""
    if isinstance(value, dict | list) or (isinstance(value, int) and abs(value) > 10**20):
        return kind_of(value)
    return ascii(value[:50] if isinstance(value, str) else value)
