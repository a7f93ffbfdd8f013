"""An AWS Lambda handler: `mangakd.runtime.aws_lambda.handler`.

There are two ways to call the handler, with the question of mangakd.runtime.question:
- through API Gateway (HTTP API, payload format 2.0) or a function URL: POST with a JSON body, HTTP statuses as in the service;
- directly (invoke): the event is the question, the result is {"predictions": […]}, and a wrong question fails the invocation.

The import of the module loads the student, and Lambda imports the module before the first event. MANGAKD_MODEL names the folder
(default: `model` in the function's folder). Lambda sends one event at a time, so the handler needs no queue. The number of
threads is the number of whole vCPUs of the function's memory size: threads that share a vCPU would wait for each other.
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
ONE_CPU = 1769  # MB of a function with one vCPU; smaller functions have a share of a vCPU, but see two
THREADS = max(1, int(os.environ.get("AWS_LAMBDA_FUNCTION_MEMORY_SIZE", 0)) // ONE_CPU)
FOLDER = os.environ.get("MANGAKD_MODEL") or os.path.join(os.environ.get("LAMBDA_TASK_ROOT", "."), "model")
MODEL = load(FOLDER, THREADS)


def handler(event: dict[str, Any], context: Any = None) -> dict[str, Any]:
    """Raises Refused for a direct invocation that is no question. Over HTTP a wrong question gets a response with its status."""
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


def _answer(query: Question) -> dict[str, Any]:
    return {"predictions": MODEL.answers(MODEL.outputs(query.texts), query.top)}


def _response(status: int, content: dict[str, Any]) -> dict[str, Any]:
    headers = {"content-type": "application/json"}
    return {"statusCode": status, "headers": headers, "body": json.dumps(content, allow_nan=False)}
