"""The `export` group of a config as objects."""

from dataclasses import fields
from typing import Any

from hydra.utils import instantiate
from omegaconf import DictConfig

from mangakd.export.run import Options
from mangakd.runs.exports import Exports


def exports_of(config: DictConfig, max_length: int | None) -> Exports:
    """max_length: of the training texts, where export.max_length is null. Raises UserError, behind Hydra's error, for
    variants that are unknown or named twice, packages that are not installed, and options that no export can have."""
    entries = [value for value in config.export.values() if isinstance(value, DictConfig) and "_target_" in value]
    values: dict[str, Any] = {field.name: config.export[field.name] for field in fields(Options)}
    usable = (
        max_length if isinstance(max_length, int) and max_length > 1 else None
    )  # a wrong one is reported by its own key
    options = Options(**{**values, "max_length": values["max_length"] or usable})
    exports = Exports([instantiate(entry, _convert_="all") for entry in entries], options)
    _ = exports.language_rows if exports.language else exports.rows
    return exports
