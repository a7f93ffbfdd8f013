"""An AWS Lambda handler: `mangakd.runtime.aws_lambda.handler`.

There are two ways to call the handler, with the questions of mangakd.runtime.routes:
- through API Gateway (HTTP API, payload format 2.0) or a function URL: POST with a JSON body, paths and HTTP statuses as in the
  service; a path that is no route asks the student's main route;
- directly (invoke): the event is the body of a question, whose keys say which route it is for; the result is the content of the
  response, and a wrong question fails the invocation.

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
from mangakd.runtime.question import Limits, Refused, parse
from mangakd.runtime.routes import MAIN, ROUTES, Route, path_of

LIMITS = Limits()
ONE_CPU = 1769  # MB of a function with one vCPU; smaller functions have a share of a vCPU, but see two
THREADS = max(1, int(os.environ.get("AWS_LAMBDA_FUNCTION_MEMORY_SIZE", 0)) // ONE_CPU)
FOLDER = os.environ.get("MANGAKD_MODEL") or os.path.join(os.environ.get("LAMBDA_TASK_ROOT", "."), "model")
MODEL = load(FOLDER, THREADS)


def handler(event: dict[str, Any], context: Any = None) -> Any:
    """Raises Refused for a direct invocation that is no question. Over HTTP a wrong question gets a response with its status."""
    if not isinstance(event, dict) or "requestContext" not in event:
        return _answer(_route_of(event), event)
    http = event["requestContext"].get("http", {})
    route = ROUTES[path_of(str(http.get("path")), MODEL) or MAIN[MODEL.use]]
    try:
        if http.get("method") != "POST":
            raise Refused(
                405, f"method {http.get('method')}; send POST with a JSON body. This is for payload format 2.0."
            )
        return _response(200, _answer(route, parse(_body(event), LIMITS)))
    except Refused as error:
        return _response(*route.error(error))


def _route_of(event: Any) -> Route:
    """The route whose required keys the event has; of several the one with most keys, and then one that the student answers."""
    keys = set(event) if isinstance(event, dict) else set()
    fitting = [route for route in ROUTES.values() if keys.issuperset(route.schema["required"])]

    def fit(route: Route) -> tuple[int, bool]:
        return len(route.schema["required"]), MODEL.use in route.uses

    return max(fitting, key=fit, default=ROUTES[MAIN[MODEL.use]])


def _body(event: dict[str, Any]) -> bytes:
    body = event.get("body") or ""
    if not event.get("isBase64Encoded"):
        return body.encode("utf-8", "surrogatepass")
    try:
        return base64.b64decode(body, validate=True)
    except (binascii.Error, ValueError) as error:
        raise Refused(400, f"the body is no base64: {error}.") from error


def _answer(route: Route, content: Any) -> Any:
    question = route.question(content, MODEL, LIMITS)
    return question.answer(MODEL, MODEL.outputs(question.texts))


def _response(status: int, content: Any) -> dict[str, Any]:
    headers = {"content-type": "application/json"}
    return {"statusCode": status, "headers": headers, "body": json.dumps(content, allow_nan=False)}
