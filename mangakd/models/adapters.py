"""`Adapters`: which weights of an encoder with adapters learn, and which base lies under them (models/lora.py)."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Adapters:
    """names: of what learns, in the encoder's state_dict: adapters and head. base: digest of the frozen weights."""

    names: frozenset[str]
    base: str

    def learned(self, state: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
        """A state_dict without the frozen weights. prefix: of the encoder's names in it; other names stay."""
        ours = {f"{prefix}{name}" for name in self.names}
        return {name: value for name, value in state.items() if name in ours or not name.startswith(prefix)}
