"""POST /v1/embeddings in OpenAI's shape, so that its clients work here.

    {"input": "…" or ["…", …], "model": "any", "dimensions": 128, "encoding_format": "float" or "base64"}
    → {"object": "list", "data": [{"object": "embedding", "index": 0, "embedding": …}], "model": …, "usage": {…}}

base64 holds little-endian float32. Vectors have the length 1. Errors are OpenAI's:
{"error": {"message": "one sentence", "type": …, "param": null, "code": null}}, of status 400 for every wrong question.
Source: https://platform.openai.com/docs/api-reference/embeddings
"""

import base64
from dataclasses import dataclass
from typing import Any

import numpy as np

from mangakd.runtime.answers import normalised, shortened
from mangakd.runtime.inference_api import dimensions, strings
from mangakd.runtime.model import Model
from mangakd.runtime.question import Limits, Refused, check_object, show
from mangakd.runtime.tokenise import Text

FORMATS = ("float", "base64")
TYPES = {429: "rate_limit_exceeded", 503: "server_error"}  # of other statuses: invalid_request_error
SCHEMA: dict[str, Any] = {
    "type": "object",
    "required": ["input"],
    "properties": {
        "input": {"oneOf": [{"type": "string"}, {"type": "array", "minItems": 1, "items": {"type": "string"}}]},
        "model": {"type": "string"}, "user": {"type": "string"}, "dimensions": {"type": "integer", "minimum": 1},
        "encoding_format": {"type": "string", "enum": [*FORMATS]},
    },
}  # fmt: skip


@dataclass(frozen=True)
class Embeddings:
    texts: list[Text]
    tokens: int
    dims: int | None
    encoding: str

    def answer(self, model: Model, rows: np.ndarray) -> Any:
        vectors = normalised(shortened(rows, self.dims))
        data = [{"object": "embedding", "index": i, "embedding": self._encoded(row)} for i, row in enumerate(vectors)]
        usage = {"prompt_tokens": self.tokens, "total_tokens": self.tokens}
        return {"object": "list", "data": data, "model": model.manifest.variant, "usage": usage}

    def _encoded(self, row: np.ndarray) -> Any:
        return row.tolist() if self.encoding == "float" else base64.b64encode(row.astype("<f4").tobytes()).decode()


def embeddings(content: Any, model: Model, limits: Limits) -> Embeddings:
    check_object(content, '{"input": ["…"]}')
    given, encoding = content.get("input"), content.get("encoding_format")
    given = [given] if isinstance(given, str) else given
    if isinstance(given, list) and given and isinstance(given[0], int | list):
        raise Refused(422, "input holds tokens, whose numbers mean other words to this student; send strings.")
    if encoding not in (None, *FORMATS):
        raise Refused(422, f"encoding_format is {show(encoding)}; send one of {', '.join(FORMATS)}.")
    texts = strings({"input": given}, "input", limits)
    dims = dimensions(content, model)
    prompted: list[Text] = [*model.prompted(texts, None)]
    return Embeddings(prompted, sum(model.lengths(prompted)[0]), dims, encoding or "float")


def error(refusal: Refused) -> tuple[int, Any]:
    """The status and the content of the response."""
    status = 400 if refusal.status in (413, 422, 424) else refusal.status
    kind = TYPES.get(status, "invalid_request_error")
    return status, {"error": {"message": str(refusal), "type": kind, "param": None, "code": None}}
