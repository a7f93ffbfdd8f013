"""An AWS Lambda handler: `mangakd.runtime.aws_lambda.handler`.

Two ways to call it, with the question of mangakd.runtime.question:
- through API Gateway (HTTP API, payload format 2.0) or a function URL: POST with a JSON body, HTTP statuses as in the service;
- directly (invoke): the event is the question, the result is {"predictions": […]}, and a wrong question fails the invocation.

The student is loaded when the module is imported, which Lambda does before the first event: MANGAKD_MODEL names its folder
(default: `model` in the function's own folder). One event is computed at a time, so there is no queue here.
It computes with as many threads as its memory buys whole vCPUs: threads that share one vCPU would wait for each other in turns.
Event format: https://docs.aws.amazon.com/apigateway/latest/developerguide/http-api-develop-integrations-lambda.html
"""

import base64
import binascii
import json
import os
from typing import Any

from mangakd.runtime.model import load
from mangakd.runtime.question import Limits, Question, Refused, parse, question

LIMITS = Limits()
ONE_CPU = 1769  # MB of a function with one vCPU; smaller ones have a share of one, but see two
THREADS = max(1, int(os.environ.get("AWS_LAMBDA_FUNCTION_MEMORY_SIZE", 0)) // ONE_CPU)
FOLDER = os.environ.get("MANGAKD_MODEL") or os.path.join(os.environ.get("LAMBDA_TASK_ROOT", "."), "model")
MODEL = load(FOLDER, THREADS)


def handler(event: dict[str, Any], context: Any = None) -> dict[str, Any]:
    """Raises Refused for a direct invocation that is no question; through HTTP that is a response."""
    if not isinstance(event, dict) or "requestContext" not in event:
        return _answer(question(event, LIMITS))
    try:
        return _response(200, _http(event))
    except Refused as error:
        return _response(error.status, {"error": str(error)})


def _http(event: dict[str, Any]) -> dict[str, Any]:
    method = event["requestContext"].get("http", {}).get("method")
    if method != "POST":
        raise Refused(405, f"method {method}; send POST with a JSON body. This is for payload format 2.0.")
    return _answer(parse(_body(event), LIMITS))


def _body(event: dict[str, Any]) -> bytes:
    body = event.get("body") or ""
    if not event.get("isBase64Encoded"):
        return body.encode("utf-8", "surrogatepass")
    try:
        return base64.b64decode(body, validate=True)
    except (binascii.Error, ValueError) as error:
        raise Refused(400, f"the body is no base64: {error}.") from error


def _answer(asked: Question) -> dict[str, Any]:
    return {"predictions": MODEL.answers(MODEL.outputs(asked.texts), asked.top)}


def _response(status: int, content: dict[str, Any]) -> dict[str, Any]:
    headers = {"content-type": "application/json"}
    return {"statusCode": status, "headers": headers, "body": json.dumps(content, allow_nan=False)}
