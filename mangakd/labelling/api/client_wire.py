"""`ClientWire`: what APIs have in common that are asked through an official client of OpenAI or Anthropic."""

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, ClassVar

from mangakd.labelling.api.client_errors import installed
from mangakd.labelling.api.wire import Wire, key_from, plain_address


@dataclass(kw_only=True)
class ClientWire(Wire):
    """base_url: None for the one in the environment variable `address_variable`, else the `official` one.

    key_variable: the environment variable that holds the key. stop: texts that end an answer. omit: parameters that the model
    refuses, such as temperature. extra: further parameters. client_class: of the package `name`.
    """

    client_class: ClassVar[str]
    official: ClassVar[str]
    address_variable: ClassVar[str]
    model: str
    base_url: str | None = None
    key_variable: str
    timeout: float = 600.0
    stop: Sequence[str] = ()
    omit: Sequence[str] = ()
    extra: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        address = self.base_url or os.environ.get(self.address_variable) or self.official
        self.address = plain_address(address, "provider.base_url")

    def prepare(self) -> None:
        _ = self.client

    async def close(self) -> None:
        if "client" in vars(self):
            await self.client.close()
            del self.client

    @cached_property
    def client(self) -> Any:
        """Asynchronous, without retries of its own. Raises UserError where the key or the package is missing."""
        make = getattr(installed(self.name), self.client_class)
        return make(api_key=self._key or "none", base_url=self.address, max_retries=0, timeout=self.timeout)

    @property
    def _key(self) -> str:
        return key_from(self.key_variable, needed=self.address == self.official)

    @property
    def secrets(self) -> tuple[str, ...]:
        return tuple(filter(None, [self._key]))

    @property
    def cure(self) -> str:
        return (
            f"Check the key in the environment variable {self.key_variable}, provider.model={self.model} and "
            f"provider.base_url={self.address}."
        )
