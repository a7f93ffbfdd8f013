"""Check the words of a command line against Hydra's grammar before Hydra runs.

Hydra's own messages name neither the argument nor the quoting that works. These do: each repair that is proposed has been parsed.
"""

import difflib
import re
import shlex
from argparse import ArgumentParser
from collections.abc import Iterator, Sequence
from typing import NoReturn

from hydra._internal.utils import get_args_parser
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override
from hydra.errors import HydraException
from omegaconf import OmegaConf

from mangakd.cli.searchpath import CONF, groups, options_of
from mangakd.cli.words import quoted
from mangakd.core.errors import UserError
from mangakd.core.invocation import command

NEEDED = ("task", "data", "teacher", "student", "losses", "stages", "optim", "hardware", "paths", "gate")
CLOSING = {"[": "]", "{": "}", "(": ")"}


def check_line(words: Sequence[str]) -> None:
    """Raises UserError for the first flag or override that Hydra would refuse."""
    parser = get_args_parser()
    parser.error = _refuse  # type: ignore[method-assign]
    arguments, unknown = parser.parse_known_args(list(words))
    if unknown:
        raise UserError(_unknown_flag(unknown[0], parser))
    check_overrides(arguments.overrides)


def check_overrides(words: Sequence[str]) -> None:
    """Raises UserError for the first word that is no override, or that gives a group something other than names."""
    for index, word in enumerate(words):
        override = parse(word)
        if override is None:
            raise UserError(_refused(words, index))
        _check_group(word, override)


def parse(word: str) -> Override | None:
    """None for a word outside Hydra's grammar."""
    try:
        override = OverridesParser.create().parse_override(word)
        return override if override.key_or_group else None
    except HydraException:
        return None


def _refuse(message: str) -> NoReturn:
    raise UserError(f"{message}. {command('train')} --help lists what there is.")


def _unknown_flag(word: str, parser: ArgumentParser) -> str:
    bare = word.lstrip("-")
    if bare == word:
        return f"{word} stands after a flag: give the flags first, then all overrides."
    if "=" in bare:
        return f"{word}: overrides take no dashes. Type {shlex.quote(bare)}"
    flags = [flag for action in parser._actions for flag in action.option_strings]
    close = difflib.get_close_matches(word, flags, n=1, cutoff=0.8)
    return f"there is no flag {word}" + (
        f"; did you mean {close[0]}?" if close else f". Overrides take no dashes: {bare}=…"
    )


def _check_group(word: str, override: Override) -> None:
    group, value = override.key_or_group, override.value()
    if override.is_delete() and group in NEEDED and value is None:
        raise UserError(
            f"{word}: every run needs {group}. Leave {word} out, or choose one with {group}=… ({', '.join(options_of(group))})."
        )
    if override.is_sweep_override() or override.is_delete() or not (CONF / group).is_dir() or value is None:
        return
    names = value if isinstance(value, list) else [value]
    if not all(isinstance(name, str) for name in names):
        raise UserError(
            f"{word}: {group} is a group and takes the names of its options ({', '.join(options_of(group))}), no values of its "
            f"own: {group}.<key>=… changes a key of the option, +{group}.<key>=… adds one."
        )
    if value == "":
        raise UserError(f"{word} has no value. Options: {', '.join(options_of(group))}; quote a list: '{group}=[…]'.")


def _refused(words: Sequence[str], index: int) -> str:
    word = words[index]
    key, equals, value = word.partition("=")
    if not equals:
        return _no_value(words, index)
    if not key.strip("+~"):
        return f"{word} has no key before its =."
    if (whole := _join(words, index)) is not None:
        return f"{word} is only a part of its argument: the shell splits at spaces. Quote it: {shlex.quote(whole)}"
    if len(apart := word.split()) > 1 and all(parse(part) is not None for part in apart):
        return f"{word} is {len(apart)} arguments within one pair of quotes. Quote each by itself."
    if parse(f"{key}=1") is None:
        return f"{key} in {word} is no key: keys are words joined by dots, without spaces, such as distill.alpha."
    for why, repaired in _repairs(value):
        if parse(f"{key}={repaired}") is not None:
            return f"{word} cannot be read: {why}. Type {shlex.quote(f'{key}={repaired}')}"
    return f"{word} cannot be read: {_words_of_hydra(word)}."


def _no_value(words: Sequence[str], index: int) -> str:
    word, after = words[index], "".join(words[index + 1 : index + 3])
    if index and not _is_key(word) and (whole := _join(words, index - 1)) is not None:
        return (
            f"{word} is no override, which is <key>=<value>. If it belongs to the argument before it, quote both: "
            f"{shlex.quote(whole)}"
        )
    value = after.removeprefix("=") if after.startswith("=") else "".join(words[index + 1 : index + 2])
    if value and ("=" not in value) and parse(f"{word}={value}") is not None:
        return f"{word} has no = and no value. Type {shlex.quote(f'{word}={value}')}"
    key, colon, value = word.partition(":")
    value = value or after
    if colon and parse(f"{key}={value}") is not None:
        return f"{word} has no =. Type {shlex.quote(f'{key}={value}')}"
    return f"{word} has no value: an override is <key>=<value>, such as {word}=…"


def _is_key(word: str) -> bool:
    return re.split(r"[.:@/]", word)[0] in {*OmegaConf.load(CONF / "train.yaml"), *groups()}


def _join(words: Sequence[str], index: int) -> str | None:
    """The argument that begins at `index` and goes on in the next words, which are no overrides by themselves."""
    for end in range(index + 1, len(words)):
        if "=" in words[end] and parse(words[end]) is not None:
            return None
        text = re.sub(r"^([^=]+)=\s+", r"\1=", " ".join(words[index : end + 1]))
        if parse(text) is not None:
            return text
    return None


def _repairs(value: str) -> Iterator[tuple[str, str]]:
    """(what is wrong, the value without it); the first one that parses is right."""
    yield "it has one = too many", value.lstrip("= ")
    if missing := _unclosed(value):
        yield f"{missing} is missing", value + missing
    yield "[ is missing", f"[{value}"
    yield "{ is missing", f"{{{value}"
    if re.fullmatch(r"\{[^:]*\}", value):
        yield "a list takes square brackets", f"[{value[1:-1]}]"
    if value[:1] in ("'", '"'):
        yield "its quotes do not match", value + value[0]
        yield "its quotes do not match", quoted(value.strip("'\""))
    if re.fullmatch(r"\[.*\]", value, re.DOTALL):
        items = [item.strip() for item in value[1:-1].split(",")]
        yield "some items need quotes", f"[{','.join(i if parse(f'x={i}') is not None else quoted(i) for i in items)}]"
    yield "it has characters that mean something to Hydra, so it needs quotes", quoted(value)


def _unclosed(value: str) -> str:
    """The brackets that `value` leaves open, as they would be closed."""
    waiting: list[str] = []
    for character in re.sub(r"\"[^\"]*\"|'[^']*'", "", value):
        if character in CLOSING:
            waiting.append(CLOSING[character])
        elif waiting and character == waiting[-1]:
            waiting.pop()
    return "".join(reversed(waiting))


def _words_of_hydra(word: str) -> str:
    try:
        OverridesParser.create().parse_override(word)
    except HydraException as error:
        return str(error).partition("\nSee ")[0].strip()
    return "it has no key"


def ambiguous(argument: str) -> str:
    """What to say about a value with commas outside of a sweep."""
    key, _, value = argument.partition("=")
    text = (
        "" if (CONF / key.lstrip("+")).is_dir() else f", a text takes quotes: {shlex.quote(f'{key}={quoted(value)}')}"
    )
    return f"{argument} has several values. A list takes brackets: {shlex.quote(f'{key}=[{value}]')}{text}, a sweep takes -m."
