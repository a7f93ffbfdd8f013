"""From the composed config to a `Run`: what Hydra and OmegaConf know, as plain values and objects."""

from functools import partial
from pathlib import Path
from typing import Any

from hydra.core.hydra_config import HydraConfig
from hydra.utils import instantiate
from omegaconf import DictConfig, OmegaConf

from mangakd.cli import tracking, typed
from mangakd.cli.exports import exports_of
from mangakd.cli.sweep import sweeping
from mangakd.runs.given import Given
from mangakd.runs.run import Run

SETTINGS = "config.yaml"  # in a run's folder


def run_of(config: DictConfig, folder: Path, profile: str | None = None) -> Run:
    """profile: of hardware; None for the profile that was chosen on the command line."""
    return Run.of(
        Given(
            folder=folder,
            cache=Path(config.paths.cache).expanduser().absolute(),
            profile=profile or HydraConfig.get().runtime.choices["hardware"],
            command=typed.command(),
            sweep=sweeping(),
            make=partial(_make, config),
            settings=partial(_settings, config),
            settings_of=settings_of,
        )
    )


def write_settings(settings: dict[str, Any], folder: Path) -> None:
    OmegaConf.save(OmegaConf.create(settings), folder / SETTINGS)


def settings_of(folder: Path) -> dict[str, Any] | None:
    """The settings of the run in a folder; None where there is none."""
    file = folder / SETTINGS
    return _plain(OmegaConf.load(file)) if file.is_file() else None


def _settings(config: DictConfig, key: str | None) -> Any:
    return _plain(config if key is None else OmegaConf.select(config, key))


def _plain(value: Any) -> Any:
    return OmegaConf.to_container(value, resolve=True) if OmegaConf.is_config(value) else value


def _make(config: DictConfig, key: str) -> Any:
    if key == "logger":
        return tracking.build(config.get("logger") or DictConfig({}))
    if key == "export":
        return exports_of(config, config.data.max_length)
    value = OmegaConf.select(config, key)
    return instantiate(value, _convert_="all") if OmegaConf.is_config(value) else value
