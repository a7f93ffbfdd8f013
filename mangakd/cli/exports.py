"""The `export` group of a config as objects: its callbacks, and the options that they share."""

from dataclasses import dataclass, fields
from typing import Any

from hydra.utils import instantiate
from omegaconf import DictConfig

from mangakd.export.run import Options
from mangakd.export.variants import Variant, find_variants
from mangakd.training.callbacks.export import Export


@dataclass(frozen=True)
class Exports:
    """callbacks: none for export=[]."""

    callbacks: list[Export]
    options: Options

    @classmethod
    def of(cls, config: DictConfig, max_length: int | None) -> "Exports":
        """max_length: of the training texts, where export.max_length is null. Raises UserError, behind Hydra's error, for
        variants that are not known or named twice, packages that are not installed, and options that no export can have."""
        entries = [value for value in config.export.values() if isinstance(value, DictConfig) and "_target_" in value]
        given: dict[str, Any] = {field.name: config.export[field.name] for field in fields(Options)}
        usable = max_length if isinstance(max_length, int) and max_length > 1 else None  # else told by its own key
        options = Options(**{**given, "max_length": given["max_length"] or usable})
        found = cls([instantiate(entry, _convert_="all") for entry in entries], options)
        if found.callbacks:
            _ = found.rows
        return found

    @property
    def rows(self) -> list[Variant]:
        return find_variants([name for callback in self.callbacks for name in callback.variants])
