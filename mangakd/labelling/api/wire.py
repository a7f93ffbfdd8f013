"""`Wire`: how requests travel to one kind of API and how its replies are read. It knows no ledger, no limits and no retries."""

import json
import os
import re
from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, Literal

from mangakd.core.errors import UserError
from mangakd.labelling.provider import Answer, Request
from mangakd.models.sampling import Sampling

Plain = Mapping[str, Any]
Kind = Literal["again", "slower", "rejected", "fatal"]
"""again: the same request may succeed later. slower: a limit was met, and this attempt was not counted by the provider. rejected:
this request will never succeed. fatal: no request will, such as with a wrong key."""
AGAIN, SLOWER = (408, 409), 429
NO_CREDIT = ("insufficient_quota", "billing_hard_limit_reached", "credit balance is too low", "billing_not_active")
NOT_SENT = ("ConnectError", "ConnectTimeout", "PoolTimeout", "ConnectionRefusedError", "EndpointConnectionError")


class CallError(Exception):
    """A request that got no answer. wait: seconds that the provider asks for. uncertain: it may have been paid for."""

    def __init__(
        self,
        kind: Kind,
        message: str,
        wait: float | None = None,
        uncertain: bool = False,
        headers: Mapping[str, str] = MappingProxyType({}),
    ) -> None:
        super().__init__(message)
        self.kind, self.wait, self.uncertain, self.headers = kind, wait, uncertain, headers


@dataclass(frozen=True)
class Reply:
    """raw: the JSON text as it came. headers: with names in lower case."""

    raw: str
    headers: Mapping[str, str]


@dataclass(frozen=True)
class Usage:
    """Tokens that the provider counted; None where it did not. cached: those of the prompt that it read from a cache."""

    prompt: int | None
    answer: int | None
    cached: int = 0


@dataclass(frozen=True)
class Reading:
    """What a reply says. finish: the provider's own word."""

    answer: Answer
    finish: str
    usage: Usage


class Wire(ABC):
    """name: of the provider. model: as the provider names it. address: where requests go. timeout: seconds of an attempt."""

    name: str
    model: str
    address: str
    timeout: float

    @abstractmethod
    def body(self, request: Request, sampling: Sampling) -> Plain:
        """What is sent. Raises UserError for a request that this API cannot express."""

    @abstractmethod
    async def send(self, key: str, body: Plain) -> Reply:
        """One attempt, without retries. key: of idempotency. Raises CallError."""

    @abstractmethod
    def read(self, reply: Plain) -> Reading:
        """Raises KeyError, TypeError, IndexError or ValueError for a reply that is no answer."""

    @abstractmethod
    def prepare(self) -> None:
        """Make the client before anything is asked. Raises UserError where a key or a package is missing."""

    async def close(self) -> None:  # noqa: B027 — a wire may have nothing to close
        """Close the connections."""

    @property
    def secrets(self) -> tuple[str, ...]:
        """Texts that nothing that is written may hold."""
        return ()

    @property
    def cure(self) -> str:
        """What a user checks when the provider refuses everything."""
        return ""

    def clean(self, text: str) -> str:
        """The text without secrets."""
        for secret in self.secrets:
            for form in {secret, json.dumps(secret)[1:-1], json.dumps(secret, ensure_ascii=False)[1:-1]}:
                text = text.replace(form, "[key]")
        return text


def whole(value: Any) -> int | None:
    """A count from JSON, or None for what is none."""
    return value if isinstance(value, int) and not isinstance(value, bool) else None


def key_from(variable: str, needed: bool) -> str:
    """The key of an API from the environment. Raises UserError where there is none, or where `variable` is no name."""
    if not re.fullmatch(r"[A-Za-z_][A-Za-z0-9_]*", variable):  # it may be a key: do not repeat it
        raise UserError(
            "provider.key_variable is no name of an environment variable. Keys come from the environment alone: set "
            "provider.key_variable=OPENAI_API_KEY, for example, and export the key under this name."
        )
    key = os.environ.get(variable, "").strip()
    if not key and needed:
        raise UserError(f"the environment variable {variable} is not set: export {variable}=<your key>.")
    return key


def plain_address(address: str, key: str) -> str:
    """Raises UserError for an address that is no URL, or that holds a password."""
    match = re.fullmatch(r"(https?://)([^/\s?#]+)([^\s?#]*)", address)
    if not match:
        raise UserError(f"{key} must be a URL without a query, such as http://localhost:8000/v1.")
    if "@" in match[2]:
        raise UserError(f"{key} holds a user or a password. Keys come from the environment alone: leave it out.")
    return address.rstrip("/")


def status_error(status: int, message: str, headers: Mapping[str, str], wait: float | None) -> CallError:
    """What an HTTP status means for the request. Nothing that has an error status is paid for."""
    text = f"HTTP {status}: {message}"
    if any(words in message for words in NO_CREDIT):
        return CallError("fatal", text)
    if status == SLOWER or (status in (503, 529) and wait is not None):
        return CallError("slower", text, wait, headers=headers)
    if status in AGAIN or status >= 500:
        return CallError("again", text, wait, headers=headers)
    return CallError("fatal" if status in (401, 402, 403, 404) else "rejected", text)


def connection_error(error: BaseException) -> CallError:
    """A request without a response: paid for perhaps, unless no connection was made."""
    chain = _causes(error)
    names = [type(each).__name__ for each in chain]
    cause = chain[min(1, len(chain) - 1)]  # the client's own error says "Connection error" alone
    words = f"{type(cause).__name__}: {cause or error}"
    return CallError("again", words, uncertain=not any(name in NOT_SENT for name in names))


def _causes(error: BaseException | None) -> list[BaseException]:
    chain = []
    while error is not None:
        chain.append(error)
        error = error.__cause__ or error.__context__
    return chain
