"""`Template`: the prompt of a request as a Jinja2 file, which gets the cells of a row.

    {% block system %}You answer questions of customers.{% endblock %}
    {% block user %}{{ prompt }}{% endblock %}

The block `user` is the question, the block `system` the system prompt. A file without blocks is a question alone. The blocks
`user_1` and `assistant_1`, `user_2` and `assistant_2`, … are turns before the question: small models follow examples as turns
more surely than examples in a question. Templates run in Jinja2's sandbox, and a name that the row does not have is an error.
mangakd's own templates are in labelling/prompts.
"""

import hashlib
import re
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import jinja2
from jinja2 import nodes
from jinja2.sandbox import ImmutableSandboxedEnvironment

from mangakd.core.errors import UserError, near
from mangakd.data.rows import Messages

KEY = "prompt"
OWN = Path(__file__).parent / "prompts"
_EXAMPLE = re.compile(r"(user|assistant)_([1-9]\d?)")
_SILENT = (nodes.Block, nodes.Macro, nodes.Assign, nodes.AssignBlock)  # send nothing by themselves


@dataclass(frozen=True)
class Template:
    """file: where it was read. source: its content. Raises UserError for a file that is no template of a prompt."""

    file: Path
    source: str

    @classmethod
    def of(cls, path: str) -> "Template":
        """path: of a file, or the name of one of mangakd's own, such as `grounded`."""
        file = Path(path).expanduser()
        own = OWN / f"{path}.jinja"
        if not file.is_file() and "/" not in path and own.is_file():
            file = own
        if not file.is_file():
            names = sorted(each.stem for each in OWN.glob("*.jinja"))
            raise UserError(
                f"{KEY}={path} is no file, and no template of mangakd{near(path, names)} mangakd has {', '.join(names)}; for one "
                f"of your own, copy one of {OWN} and set {KEY} to the copy."
            )
        template = cls(file, file.read_text(encoding="utf-8"))
        template.check()
        return template

    @property
    def sha256(self) -> str:
        return hashlib.sha256(self.source.encode()).hexdigest()

    def check(self) -> None:
        """Raises UserError for syntax that Jinja2 does not know, other blocks, and text beside the blocks."""
        blocks = self._compiled.blocks
        if not blocks:
            return
        wrong = [name for name in blocks if name not in ("system", "user") and not _EXAMPLE.fullmatch(name)]
        turns = [f"{role}_{number}" for number in range(1, self._examples + 1) for role in ("user", "assistant")]
        lacking = [name for name in ("user", *turns) if name not in blocks]
        if wrong or lacking:
            what = f"has the block {wrong[0]}" if wrong else f"has no block {lacking[0]}"
            raise UserError(
                f"{KEY}={self.file} {what}. Its blocks are system (or none), user, and user_1, assistant_1, user_2, … for "
                "examples, each with its answer."
            )
        for node in self._parsed.body:
            if not isinstance(node, _SILENT) and not _is_blank(node):
                raise UserError(
                    f"line {node.lineno} of {KEY}={self.file} is beside the blocks, so that no model would read it. Move it into "
                    "the block user or the block system."
                )

    def messages(self, values: Mapping[str, Any], where: str) -> Messages:
        """The system prompt, where there is one, and the question. where: of the row, for messages.

        Raises UserError for a name that the row lacks, and for a question without a word.
        """
        try:
            if not self._compiled.blocks:
                texts = {"user": self._compiled.render(values)}
            else:
                context = self._compiled.new_context(dict(values))
                texts = {name: "".join(block(context)) for name, block in self._compiled.blocks.items()}
        except jinja2.UndefinedError as error:
            raise UserError(
                f"{KEY}={self.file}: {error.message} for {where}. A template may use {', '.join(sorted(values))}."
            ) from error
        except Exception as error:  # a template can raise whatever an expression in it raises
            raise UserError(
                f"{KEY}={self.file} fails for {where}: {type(error).__name__}: {error}. Correct the template."
            ) from error
        texts = {name: text.strip() for name, text in texts.items()}
        if empty := next((name for name, text in texts.items() if not text and name != "system"), None):
            raise UserError(f"{KEY}={self.file} asks nothing for {where}: its block {empty} is empty.")
        system = (("system", texts["system"]),) if texts.get("system") else ()
        numbers = range(1, self._examples + 1)
        examples = [(role, texts[f"{role}_{number}"]) for number in numbers for role in ("user", "assistant")]
        return (*system, *examples, ("user", texts["user"]))

    @property
    def _examples(self) -> int:
        matches = (_EXAMPLE.fullmatch(name) for name in self._compiled.blocks)
        return max((int(match[2]) for match in matches if match), default=0)

    @cached_property
    def _parsed(self) -> nodes.Template:
        return _ENVIRONMENT.parse(self.source)

    @cached_property
    def _compiled(self) -> jinja2.Template:
        try:
            return _ENVIRONMENT.from_string(self.source)
        except jinja2.TemplateSyntaxError as error:
            raise UserError(f"line {error.lineno} of {KEY}={self.file} is no Jinja2: {error.message}.") from error


_ENVIRONMENT = ImmutableSandboxedEnvironment(
    undefined=jinja2.StrictUndefined, trim_blocks=True, lstrip_blocks=True, autoescape=False
)


def _is_blank(node: nodes.Node) -> bool:
    return isinstance(node, nodes.Output) and all(
        isinstance(each, nodes.TemplateData) and not each.data.strip() for each in node.nodes
    )
