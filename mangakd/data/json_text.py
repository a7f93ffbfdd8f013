"""JSON text to Python objects, where an object that has a key twice is an error and every error names its place."""

import json
import re
import sys
from json.decoder import JSONDecoder, JSONObject  # type: ignore[attr-defined]
from json.scanner import py_make_scanner  # type: ignore[attr-defined]
from typing import Any


class _RepeatedKey(Exception):
    """args: the key."""


def parse(text: str) -> Any:
    """Raises json.JSONDecodeError, also for a repeated key, an integer that Python refuses, and brackets nested too deeply."""
    try:
        return json.loads(text, object_pairs_hook=_object)
    except _RepeatedKey as repeated:
        raise _located(text, repeated) from repeated
    except RecursionError as error:
        place = max(text.find("["), 0)
        raise json.JSONDecodeError("Brackets are nested too deeply", text, place) from error
    except json.JSONDecodeError:
        raise
    except ValueError as error:
        digits = sys.get_int_max_str_digits()
        match = re.search(rf"\d{{{digits + 1}}}", text)
        raise json.JSONDecodeError(
            f"An integer has over {digits} digits", text, match.start() if match else 0
        ) from error


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    content = dict(pairs)
    if len(content) < len(pairs):
        keys = [key for key, _ in pairs]
        raise _RepeatedKey(next(key for key in keys if keys.count(key) > 1))
    return content


def _located(text: str, repeated: _RepeatedKey) -> json.JSONDecodeError:
    """The error with the place where the object begins, which only the library's slow parser tells."""

    def parse_object(start: tuple[str, int], *options: Any) -> Any:
        try:
            return JSONObject(start, *options)
        except _RepeatedKey as error:
            message = f"An object has the key {error.args[0]!r} twice"
            raise json.JSONDecodeError(message, text, start[1] - 1) from error

    decoder = JSONDecoder(object_pairs_hook=_object)
    decoder.parse_object = parse_object  # type: ignore[attr-defined]
    decoder.scan_once = py_make_scanner(decoder)  # type: ignore[attr-defined]
    try:
        decoder.decode(text)
    except json.JSONDecodeError as error:
        return error
    return json.JSONDecodeError(f"An object has the key {repeated.args[0]!r} twice", text, 0)
