"""Errors of the official clients as `CallError`; both clients are made by one generator and name their errors alike."""

import importlib
from typing import Any

from mangakd.core.errors import UserError
from mangakd.labelling.api.limits import retry_after
from mangakd.labelling.api.wire import CallError, connection_error, status_error

LENGTH = 500  # characters of a provider's message that are kept


def installed(package: str) -> Any:
    """The client's module. Raises UserError where it is not installed."""
    try:
        return importlib.import_module(package)
    except ImportError as error:
        extra = {"boto3": "bedrock"}.get(package, package)
        raise UserError(f"provider={extra} needs the package {package}: pip install 'mangakd[{extra}]'") from error


def call_error(error: Exception) -> CallError:
    """Of `openai` or `anthropic`: an error status of the server, else a connection that broke or took too long."""
    response = getattr(error, "response", None)
    status = getattr(error, "status_code", None)
    if status is None or response is None or status < 400:
        return connection_error(error)
    headers = {name.lower(): value for name, value in response.headers.items()}
    return status_error(status, str(error)[:LENGTH], headers, retry_after(headers))
