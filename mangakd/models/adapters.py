"""`Adapters`: which weights of an encoder with adapters learn, and which base lies under them (models/lora.py)."""

import importlib.util
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from mangakd.core.errors import UserError


@dataclass(frozen=True)
class Adapters:
    """names: of what learns, in the encoder's state_dict: adapters and head. base: digest of the frozen weights."""

    names: frozenset[str]
    base: str

    def learned(self, state: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
        """A state_dict without the frozen weights. prefix: of the encoder's names in it; other names stay."""
        ours = {f"{prefix}{name}" for name in self.names}
        return {name: value for name, value in state.items() if name in ours or not name.startswith(prefix)}


def check_installed() -> None:
    """Raises UserError with the command that installs peft."""
    if importlib.util.find_spec("peft") is None:
        raise UserError("adapters need peft, which is not installed here. Install it with: pip install 'mangakd[lora]'")
