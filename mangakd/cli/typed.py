"""What was typed for a run, as a command that can be typed again."""

import shlex
from pathlib import Path
from typing import Any

from hydra.conf import HydraConf
from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig, OmegaConf

from mangakd.core.invocation import command_words
from mangakd.core.run_folder import COMMAND

ELSEWHERE = ("resume=", "sweep=")  # where the run goes on, and what else is run


def command() -> list[str]:
    return [*command_words("train"), *overrides()]


def anywhere() -> str:
    """The command without the place of a clone, for what is published with the student."""
    return shlex.join(["mangakd", "train", *overrides()])


def overrides() -> list[str]:
    """With the places of templates: without hydra.searchpath their names would be unknown."""
    places = [word for word in _raw(HydraConfig.get().overrides.hydra) if word.startswith("hydra.searchpath=")]
    return [*places, *(word for word in typed_words() if not word.startswith(ELSEWHERE))]


def typed_words() -> list[str]:
    return as_typed(HydraConfig.get())


def as_typed(hydra: HydraConf | DictConfig) -> list[str]:
    """The overrides in Hydra's own config."""
    return _raw(hydra.overrides.task)


def _raw(words: Any) -> list[str]:
    """Not iterated over: `${…}` in a word would be looked up among Hydra's keys."""
    texts: list[str] = OmegaConf.to_container(words, resolve=False)  # type: ignore[assignment]
    return texts


def keep(folder: Path) -> None:
    """In the run's folder."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / COMMAND).write_text(shlex.join(command()) + "\n")
