"""Answers that follow a JSON schema: the schema of a file, and what is wrong with an answer."""

import hashlib
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from mangakd.core.errors import UserError
from mangakd.data.json_text import parse
from mangakd.data.tables import existing
from mangakd.labelling.forms.form import Unusable

KEY = "schema"
_FENCE = re.compile(r"```(?:json)?[ \t]*\n(.*)\n?```", re.DOTALL)


@dataclass(frozen=True)
class Schema:
    """content: a JSON schema, of the draft that its `$schema` names, else 2020-12."""

    content: Mapping[str, Any]

    @classmethod
    def read(cls, path: str) -> "Schema":
        """Raises UserError where the file holds no schema, and where the package jsonschema is missing."""
        file = existing(path, KEY)
        try:
            content = parse(file.read_text(encoding="utf-8"))
        except ValueError as error:
            raise UserError(f"{KEY}={path} is no JSON: {error}.") from error
        schema = cls(content)
        schema.check(file)
        return schema

    @property
    def sha256(self) -> str:
        return hashlib.sha256(json.dumps(self.content, sort_keys=True).encode()).hexdigest()

    def check(self, file: Path) -> None:
        jsonschema = _package()
        if not isinstance(self.content, dict):
            raise UserError(f"{KEY}={file} holds a {type(self.content).__name__}; a schema is an object.")
        try:
            self._validator.check_schema(self.content)
        except jsonschema.exceptions.SchemaError as error:
            raise UserError(f"{KEY}={file} is no JSON schema: {error.message} at {error.json_path}.") from error

    def text(self, answer: str) -> str:
        """The JSON text of an answer, without the fence that models like to write around it.

        Raises Unusable for an answer that is no JSON, or that the schema does not allow.
        """
        fence = _FENCE.fullmatch(answer.strip())
        text = fence[1].strip() if fence else answer.strip()
        try:
            value = parse(text)
        except ValueError as error:
            raise Unusable("no JSON", str(error)) from error
        if mistake := next(iter(self._validator.iter_errors(value)), None):
            raise Unusable("not as the schema says", f"{mistake.json_path}: {mistake.message}")
        return text

    @cached_property
    def _validator(self) -> Any:
        import referencing  # comes with jsonschema

        validators = _package().validators
        kind = validators.validator_for(self.content, default=validators.Draft202012Validator)
        return kind(self.content, registry=referencing.Registry())  # else jsonschema fetches what a $ref names


def _package() -> Any:
    try:
        import jsonschema
    except ImportError as error:
        raise UserError(f"{KEY}=… needs the package jsonschema: pip install 'mangakd[prompts]'") from error
    return jsonschema
