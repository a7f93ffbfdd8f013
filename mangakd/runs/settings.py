"""Settings of a run as flat dictionaries: which of them change what is learnt, and which change nothing of the result."""

from typing import Any

LEARNT_FROM = ("losses", "optim", "student", "stages", "trainer", "seed", "on_policy")
# Output paths, logging, hardware: settings that don't affect the result. Ignored when two runs are compared.
OUTSIDE = ("resume", "logger", "paths", "gate", "hardware", "checkpoint", "plan", "validate")
# Entries of conf/teacher that make another teacher.
SAME_TEACHER = ("path", "paths", "seed", "seeds", "labels", "interaction", "fit")


def flat(values: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    """Nested keys as `a.b.c`."""
    result: dict[str, Any] = {}
    for name, value in values.items():
        result |= flat(value, f"{prefix}{name}.") if isinstance(value, dict) else {f"{prefix}{name}": value}
    return result


def of_learning(settings: dict[str, Any]) -> dict[str, Any]:
    """The settings that change what is learnt."""
    return flat({group: settings.get(group) for group in LEARNT_FROM})


def of_result(settings: dict[str, Any]) -> dict[str, Any]:
    """The settings that change a run's result."""
    inside = {key: value for key, value in settings.items() if key not in OUTSIDE}
    if not any(isinstance(value, dict) for value in inside.get("export", {}).values()):
        inside.pop("export", None)  # options of an export that this run does not make
    return flat(inside)


def of_teacher(settings: dict[str, Any]) -> dict[str, Any]:
    """The settings that make another teacher. settings: of conf/teacher."""
    return flat({key: settings.get(key) for key in SAME_TEACHER})
