"""Keys whose value is of the wrong kind or outside its range, and keys that were given and play no part in the run."""

import difflib
import fnmatch
import logging
import re
from collections.abc import Callable, Iterator
from typing import Any

from hydra import compose
from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig, ListConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from mangakd.cli.mistakes import keys_of
from mangakd.cli.typed import typed_words
from mangakd.core.invocation import command
from mangakd.training import hardware

log = logging.getLogger(__name__)

# key: kind, what is right, in words
NUMBERS: dict[str, tuple[type, Callable[[Any], bool], str]] = {
    "distill.temperature": (float, lambda v: 0 < v < float("inf"), "above 0"),
    "distill.alpha": (float, lambda v: 0 <= v <= 1, "in [0, 1]"),
    "distill.beta": (float, lambda v: 0 <= v < float("inf"), "at least 0"),
    "distill.gamma": (float, lambda v: 0 <= v < float("inf"), "at least 0"),
    "optim.lr": (float, lambda v: 0 < v < float("inf"), "above 0"),
    "optim.weight_decay": (float, lambda v: v >= 0, "at least 0"),
    "optim.warmup": (float, lambda v: 0 <= v < 1, "in [0, 1)"),
    "optim.clip": (float, lambda v: v > 0, "above 0, or null"),
    "optim.gradient_norms": (int, lambda v: v >= 1, "a whole number of steps from 1 on, or null"),
    "hardware.devices": (int, lambda v: v >= 1, "a whole number from 1 on"),
    "hardware.nodes": (int, lambda v: v >= 1, "a whole number from 1 on"),
    "hardware.batch_size": (int, lambda v: v >= 1, "a whole number from 1 on"),
    "hardware.tokens_per_batch": (int, lambda v: v >= 1, "a whole number of tokens from 1 on, or null"),
    "hardware.accumulate": (int, lambda v: v >= 1, "a whole number from 1 on"),
    "hardware.eval_batch_size": (int, lambda v: v >= 1, "a whole number from 1 on"),
    "hardware.workers": (int, lambda v: v >= 0, "a whole number from 0 on"),
    "trainer.max_epochs": (int, lambda v: v >= 1, "a whole number from 1 on"),
    "data.max_length": (int, lambda v: v >= 4, "a whole number of tokens from 4 on"),
    "data.split_seed": (int, lambda v: True, "a whole number"),
    "checkpoint.every_steps": (int, lambda v: v >= 1, "a whole number from 1 on, or null"),
    "checkpoint.every_minutes": (float, lambda v: v > 0, "above 0, or null"),
    "seed": (int, lambda v: 0 <= v < 2**32, "a whole number from 0 on"),
}
SECTIONS = ("distill", "trainer", "checkpoint", "augment")
MAY_BE_NULL = (
    "optim.clip", "optim.gradient_norms", "hardware.tokens_per_batch", "checkpoint.every_steps", "checkpoint.every_minutes"
)  # fmt: skip
LISTS = ("student.layers", "teacher.seeds")  # or null
CHOICES: dict[str, tuple[Any, ...]] = {
    "optim.schedule": ("linear", "cosine", "constant"),
    "hardware.strategy": hardware.STRATEGIES,
    "hardware.precision": hardware.PRECISIONS,
    "hardware.attention": hardware.ATTENTION,
    "hardware.compile": (True, False),
    "hardware.packing": (True, False),
    "hardware.teacher.placement": hardware.PLACEMENTS,
    "hardware.teacher.dtype": hardware.DTYPES,
    "validate": (True, False),
    "plan": (True, False),
    "baseline": (True, False),
}


def wrong_values(config: DictConfig) -> Iterator[str]:
    """One sentence for each key that is wrong."""
    flat = [key for key in SECTIONS if not isinstance(config.get(key), DictConfig)]
    for key in flat:
        yield f"{key}={_show(config.get(key))}: {key} has keys of its own, which are set one by one: {key}.<key>=…"
    for key, (kind, good, words) in NUMBERS.items():
        if key.split(".")[0] in flat:
            continue
        value = _value(config, key)
        if value is None and key in MAY_BE_NULL:
            continue
        number = isinstance(value, int if kind is int else int | float) and not isinstance(value, bool)
        if not number or not good(value):
            yield f"{key}={_show(value)} must be {words}."
    for key in LISTS:
        value = _value(config, key)
        if not isinstance(value, ListConfig | None):
            yield f"{key}={_show(value)} must be a list, or null: '{key}=[{_show(value)}]'."
    for key, choices in CHOICES.items():
        value = _value(config, key)
        if value not in choices:
            yield f"{key}={_show(value)} must be one of {', '.join(map(_show, choices))}."


def _value(config: DictConfig, key: str) -> Any:
    try:
        return OmegaConf.select(config, key)
    except OmegaConfBaseException as error:  # an interpolation that leads nowhere
        return str(error).splitlines()[0]


def _show(value: Any) -> str:
    return "null" if value is None else str(value).lower() if isinstance(value, bool) else str(value)


def warn_ignored(config: DictConfig) -> None:
    """Warn about settings given on the command line that nothing in this run reads."""
    keys = _overrides()
    losses = config.get("losses") or {}
    text, names = OmegaConf.to_yaml([losses, config.get("on_policy")]), ", ".join(losses) or "none"
    for key in sorted(keys):
        if key.startswith("distill.") and key not in text:
            log.warning("%s is set, but no chosen loss reads it (losses: %s).", key, names)
    _warn_of_student(config.student, keys)
    unused = _unused_hardware(config.hardware, config.teacher) | _unused_of_store(config.teacher, config.task.kind)
    for pattern, why in unused.items():
        for key in fnmatch.filter(sorted(keys), pattern):
            log.warning("%s is ignored: %s.", key, why)
    for key in unread(config):
        log.warning("+%s is read by nothing: there is no such key. %s --help lists them.", key, command("train"))


def _warn_of_student(student: DictConfig, keys: set[str]) -> None:
    """Warn about another source of the student than the one that wins: its path, then its layers, then its sizes."""
    wins = next((name for name in ("path", "layers") if student[name] is not None), None)
    if wins is None:
        return
    lost = {key for key in keys if key.split(".")[:2] == ["student", "sizes"] or (student.sizes and key == "student")}
    if wins == "path":
        lost |= keys & {"student.layers"}
    value = str(student[wins]).replace(" ", "")
    for key in sorted(lost):
        log.warning("%s is ignored: student.%s=%s wins. To use it, add student.%s=null.", key, wins, value, wins)


def _unused_hardware(hardware: DictConfig, teacher: DictConfig) -> dict[str, str]:
    """Pattern of keys → why this profile does not read them."""
    unused = {"hardware.machine.*": "its figures are for plan=true and the command plan"}
    if hardware.accelerator in ("cpu", "mps"):
        unused["hardware.pin_memory"] = "page-locked batches are for GPUs"
    if str(teacher._target_).endswith("Cached"):
        unused["hardware.teacher.placement"] = "teacher=cached keeps none in memory"
    for key in ("batch_size", "accumulate", "max_length", "eval_batch_size"):
        if not OmegaConf.is_interpolation(hardware, key):  # set by a template, a profile or the command line
            why = f"hardware.{key}={_show(hardware[key])} wins"
            unused |= {f"hardware.tasks.*.{key}": why, f"hardware.fallback.{key}": why}
    if (tokens := hardware.tokens_per_batch) is not None:
        why = f"hardware.tokens_per_batch={_show(tokens)} wins. To use it, add hardware.tokens_per_batch=null"
        sizes = ("hardware.batch_size", "hardware.tasks.*.batch_size", "hardware.fallback.batch_size")
        unused |= dict.fromkeys(sizes, why)
    return unused


def _unused_of_store(teacher: DictConfig, kind: str) -> dict[str, str]:
    """The same for how a store keeps the answers of a head of `kind`."""
    if "stored_as" not in teacher:
        return {}
    if kind != "tokens":
        return dict.fromkeys(
            ("teacher.k", "teacher.draws", "teacher.temperature"),
            f"it is for language models, and the head is of {kind}",
        )
    stored_as = teacher.stored_as or "topk"
    readers = {"k": ["topk"], "draws": ["draws"], "temperature": ["topk", "draws"], "stored_dtype": ["topk", "states"]}
    return {
        f"teacher.{key}": f"it is for stored_as={' and '.join(names)}, and the store holds {stored_as}"
        for key, names in readers.items()
        if stored_as not in names
    }


def misspelt(config: DictConfig) -> Iterator[str]:
    """One sentence for each `+key` that nothing reads and that is nearly a key: it would be left without effect."""
    if added := unread(config):
        names = keys_of(compose("train"))
        for key in added:
            if close := difflib.get_close_matches(key, names, n=1, cutoff=0.8):
                yield f"+{key} is read by nothing; did you mean {close[0]}, without the +?"


def unread(config: DictConfig) -> list[str]:
    """Keys put beside the known ones with `+key=value` or `++key=value` that no part of the config refers to."""
    texts = [text.partition("=")[0] for text in typed_words()]
    added = [key.lstrip("+") for key in texts if re.fullmatch(r"\+\+?(distill\.)?\w+", key)]
    if not added:
        return []
    names = {*HydraConfig.get().runtime.choices, *keys_of(compose("train"))}
    text = OmegaConf.to_yaml(config)
    return [key for key in added if key not in names and f"${{{key}}}" not in text]


def _overrides() -> set[str]:
    """Keys and groups of this run's own overrides, not those that a yaml file sets."""
    return {text.lstrip("+").partition("=")[0] for text in typed_words() if "=" in text}
