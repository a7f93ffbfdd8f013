"""`Given`: what a command hands to a run. The commands read the config with Hydra; a run sees plain values and objects."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any


@dataclass(frozen=True)
class Given:
    """folder: of the run. cache: paths.cache. profile: name of the hardware profile. command: words that start this run.

    sweep: whether a sweep started this run, as one of many.
    make: key of the config → its object, such as `hardware` or `losses.output`; other values as they are.
    settings: key of the config → its plain values, interpolations resolved; None → all of them.
    settings_of: folder → the settings of the run in it; None where the folder holds no run.

    The properties below are read from the settings at each use, so that a wrong value is reported by the check that needs it.
    """

    folder: Path
    cache: Path
    profile: str
    command: Sequence[str]
    sweep: bool
    make: Callable[[str], Any]
    settings: Callable[[str | None], Any]
    settings_of: Callable[[Path], dict[str, Any] | None]

    @property
    def seed(self) -> int:
        return self.settings("seed")  # type: ignore[no-any-return]

    @property
    def resume(self) -> bool | str:
        """False, `auto`, or the path of a checkpoint."""
        return self.settings("resume")  # type: ignore[no-any-return]

    @property
    def baseline(self) -> bool:
        return self.settings("baseline")  # type: ignore[no-any-return]

    @property
    def max_length(self) -> int:
        """Tokens of a text."""
        return self.settings("data.max_length")  # type: ignore[no-any-return]

    @property
    def trainer(self) -> dict[str, Any]:
        """Arguments of lightning.Trainer."""
        return self.settings("trainer")  # type: ignore[no-any-return]
