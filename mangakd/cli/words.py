"""What people type, as what Hydra takes: `scripts/report.py outputs/intent/…` means `run=outputs/intent/…`."""

import re


def keyed(words: list[str], key: str, many: bool = False) -> list[str]:
    """Overrides as they are, and the other words under `key`, quoted so that Hydra takes them as they were typed.

    many: key takes a list. One word under a key that takes one; a second one is left for Hydra to refuse.
    """
    plain = [word for word in words if "=" not in word and not word.startswith(("-", "~", "+"))]
    rest = [word for word in words if word not in plain]
    if many:
        return [*rest, f"{key}=[{','.join(map(quoted, plain))}]"] if plain else rest
    return [*rest, *(f"{key}={quoted(word)}" for word in plain)]


def under(words: list[str], group: str, keys: tuple[str, ...]) -> list[str]:
    """`student=…` as `<group>.student=…`: Hydra would look for an option of conf/student."""
    return [f"{group}.{word}" if word.partition("=")[0] in keys else word for word in words]


def quoted(value: str) -> str:
    """`value` as Hydra reads it back: in double quotes. It takes back the backslashes before a quote alone."""
    escaped = re.sub(r'(\\*)("|$)', lambda end: end[1] * 2 + end[2].replace('"', '\\"'), value)
    return f'"{escaped}"'
