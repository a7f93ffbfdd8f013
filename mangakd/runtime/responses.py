"""JSON responses of the services."""

import json
from typing import Any

from starlette.responses import Response

from mangakd.runtime.question import Refused

RETRY_AFTER = {"retry-after": "1"}  # seconds
_encode = json.JSONEncoder(allow_nan=False).encode  # json.dumps with an option creates an encoder at each call


def json_response(content: Any, status: int = 200, headers: dict[str, str] | None = None) -> Response:
    """A JSON response in ASCII, so that no label can break the encoding. Raises for NaN, which is no JSON."""
    return Response(_encode(content), status, headers, "application/json")


def refusal_response(error: Refused, status: int, content: Any) -> Response:
    headers = RETRY_AFTER if error.status in (429, 503) else {}
    # Close the connection: the body may be unread, or the port is about to close.
    close = {"connection": "close"} if error.status in (408, 413, 503) else {}
    return json_response(content, status, {**headers, **close})
