"""The yaml of a rollout, conf/rollout/canary.yaml and shadow.yaml, read and checked before a model is loaded.

The service has neither Hydra nor omegaconf, so PyYAML reads the file. Every key of the yaml is a field below, and a key that is
missing has the field's default: conf/rollout documents the keys line by line.
"""

import itertools
from collections.abc import Iterator, Mapping
from dataclasses import MISSING, asdict, dataclass, field, fields
from pathlib import Path
from typing import Any

from mangakd.core.errors import UserError, near
from mangakd.core.invocation import CLONE, PACKAGE
from mangakd.runtime.rollout.sprt import Hypotheses

MODES = ("canary", "shadow")
EXAMPLES = (PACKAGE if (PACKAGE / "conf").is_dir() else CLONE) / "conf" / "rollout"  # of a wheel, or of a clone


@dataclass(frozen=True)
class Step:
    samples: int = 300
    seconds: float = 600


@dataclass(frozen=True)
class Agreement:
    expected: float = 0.97
    hold: float = 0.02
    rollback: float = 0.05
    cosine: float = 0.95
    f1: float = 1.0
    value: float = 0.1


@dataclass(frozen=True)
class Errors:
    expected: float = 0.002
    rollback: float = 0.01


@dataclass(frozen=True)
class Risks:
    alpha: float = 0.05
    beta: float = 0.05


@dataclass(frozen=True)
class BreakerSettings:
    failures: int = 5
    seconds: float = 10


@dataclass(frozen=True)
class Settings:
    """mode: canary or shadow. steps: shares of the student, rising; shadow has the step 0 alone."""

    incumbent: str
    mode: str = "canary"
    name: str = "rollout"
    log: str = "rollout.jsonl"
    texts: str | None = None
    texts_most: int = 10_000
    steps: tuple[float, ...] = (0.05, 0.25, 0.5, 1.0)
    compare: float = 0.5
    waiting: int = 64
    every: float = 10
    step: Step = field(default_factory=Step)
    agreement: Agreement = field(default_factory=Agreement)
    errors: Errors = field(default_factory=Errors)
    test: Risks = field(default_factory=Risks)
    timeout: float = 10
    breaker: BreakerSettings = field(default_factory=BreakerSettings)

    @property
    def shadow(self) -> bool:
        return self.mode == "shadow"

    @property
    def hypotheses(self) -> dict[str, Hypotheses]:
        """quality decides raise or hold; agreement and errors decide the way back and share its alpha."""
        right, alpha, beta = self.agreement.expected, self.test.alpha, self.test.beta
        held, back = 1 - right + self.agreement.hold, 1 - right + self.agreement.rollback
        return {
            "quality": Hypotheses(1 - right, held, alpha, beta),
            "agreement": Hypotheses(held, back, alpha / 2, beta),
            "errors": Hypotheses(self.errors.expected, self.errors.rollback, alpha / 2, beta),
        }

    @property
    def rules(self) -> dict[str, Any]:
        """What decides, in plain data. The tests of a step start anew when the rules change."""
        return {
            "steps": list(self.steps),
            **{key: asdict(getattr(self, key)) for key in ("step", "agreement", "errors", "test")},
        }


def read(path: str | Path, incumbent: str | None = None) -> Settings:
    """incumbent: of the command line; it wins over the yaml's. Raises UserError that names the file and the key."""
    file = Path(path).expanduser()
    content = _content(file)
    if incumbent is not None:
        content["incumbent"] = incumbent
    if not content.get("incumbent"):
        raise UserError(
            f"{file} names no incumbent, which answers today. Set incumbent: to an exported folder or a URL, or add "
            "--incumbent <folder or URL>."
        )
    if content.get("mode") == "shadow":
        if "steps" in content:
            raise UserError(f"{file}: mode: shadow has no steps, because the student answers nothing. Remove steps.")
        content["steps"] = [0.0]
        content.setdefault("compare", 1.0)
    settings: Settings = _filled(Settings, content, str(file), "")
    _check(settings, file)
    return settings


def _content(file: Path) -> dict[str, Any]:
    try:
        import yaml
    except ImportError as error:
        raise UserError(f"rollout={file} needs PyYAML ({error}). Install it with: pip install pyyaml") from error
    if not file.is_file():
        raise UserError(
            f"rollout={file} is no file. Copy canary.yaml or shadow.yaml from {EXAMPLES} and give the copy's path."
        )
    try:
        content = yaml.safe_load(file.read_text(encoding="utf-8"))
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise UserError(f"rollout={file} is no YAML: {error}.") from error
    if not isinstance(content, dict):
        raise UserError(f"rollout={file} holds no keys. Copy canary.yaml from {EXAMPLES}.")
    return {str(key): value for key, value in content.items()}


def _filled(kind: type, content: Mapping[str, Any], file: str, prefix: str) -> Any:
    """An object of the dataclass `kind`. Raises UserError for an unknown key and for a value of another type."""
    known = {each.name: each for each in fields(kind)}
    values = {}
    for key, value in content.items():
        if key not in known:
            raise UserError(f"{file}: unknown key {prefix}{key}{near(key, known)}")
        values[key] = _value(known[key], value, file, prefix + key)
    return kind(**values)


def _value(about: Any, value: Any, file: str, key: str) -> Any:
    default = about.default_factory() if about.default_factory is not MISSING else about.default
    if key == "steps":
        if not isinstance(value, list) or not value or not all(map(_is_number, value)):
            raise UserError(f"{file}: steps is {value!r}; give a list of shares, such as [0.05, 0.25, 0.5, 1.0].")
        return tuple(map(float, value))
    if hasattr(default, "__dataclass_fields__"):
        if not isinstance(value, dict):
            raise UserError(
                f"{file}: {key} is {value!r}; give its keys: {', '.join(each.name for each in fields(default))}."
            )
        return _filled(type(default), value, file, f"{key}.")
    if isinstance(default, str) or about.name in ("incumbent", "texts"):
        if not isinstance(value, str) and not (about.name == "texts" and value is None):
            raise UserError(f"{file}: {key} is {value!r}; give a text.")
        return value
    whole = about.type is int
    if not (type(value) is int if whole else _is_number(value)):
        raise UserError(f"{file}: {key} is {value!r}; give a {'whole ' if whole else ''}number.")
    return value


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _check(settings: Settings, file: Path) -> None:
    """Ranges, all of them reported together."""
    wrong = [sentence for fine, sentence in (*_shares(settings), *_tests(settings), *_sizes(settings)) if not fine]
    if wrong:
        raise UserError(f"{file}: {'; '.join(wrong)}.")


def _shares(settings: Settings) -> Iterator[tuple[bool, str]]:
    steps, share = settings.steps, settings.compare
    rising = steps[0] > 0 and steps[-1] <= 1 and all(low < high for low, high in itertools.pairwise(steps))
    yield settings.mode in MODES, f"mode is {settings.mode!r}; give canary or shadow"
    yield settings.shadow or rising, f"steps is {list(steps)}; give rising shares over 0 up to 1"
    yield 0 < share <= 1, f"compare is {share}; give a share over 0 up to 1: without comparisons nothing is raised"


def _tests(settings: Settings) -> Iterator[tuple[bool, str]]:
    right, errors, risks = settings.agreement, settings.errors, settings.test
    yield 0 < right.expected < 1, f"agreement.expected is {right.expected}; give a share under 1, such as 0.97"
    yield (
        0 < right.hold < right.rollback < right.expected,
        f"agreement.hold {right.hold} and agreement.rollback {right.rollback} must be 0 < hold < rollback < expected",
    )
    yield (
        0 < errors.expected < errors.rollback < 1,
        f"errors.expected {errors.expected} and errors.rollback {errors.rollback} must be 0 < expected < rollback < 1",
    )
    yield (
        0 < risks.alpha < 0.5 and 0 < risks.beta < 0.5,
        f"test.alpha {risks.alpha} and test.beta {risks.beta} must lie over 0 and under 0.5",
    )


def _sizes(settings: Settings) -> Iterator[tuple[bool, str]]:
    counts = (settings.waiting, settings.texts_most, settings.step.samples, settings.breaker.failures)
    times = (settings.every, settings.timeout, settings.breaker.seconds)
    yield min(counts) >= 1, "waiting, texts_most, step.samples and breaker.failures must be 1 or more"
    yield min(times) > 0, "every, timeout and breaker.seconds must be over 0"
    yield settings.step.seconds >= 0, "step.seconds must be 0 or more"
    yield settings.log.endswith(".jsonl"), f"log is {settings.log!r}; give a file that ends in .jsonl"
