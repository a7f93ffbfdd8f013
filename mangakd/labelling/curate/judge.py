"""`Judge`: a model scores each row by a rubric. Its verdicts are kept in a file: no row is judged, or paid for, twice."""

import hashlib
import json
import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from mangakd.core.errors import UserError
from mangakd.data.tables import existing
from mangakd.data.token_files import Progress
from mangakd.labelling.curate.filters.base import check_count
from mangakd.labelling.curate.record import Record
from mangakd.labelling.provider import Provider, Request
from mangakd.models.sampling import Sampling

RUBRIC = """Score the answer to the question from {{ least }} to {{ most }}.
{{ most }}: correct, complete, and to the point. {{ least }}: wrong, empty, or no answer to the question.

Question:
{{ prompt }}

Answer:
{{ answer }}

Write the score alone, as one number."""
NUMBER = re.compile(r"(?<![\w.])\d+(?:\.\d+)?(?!\w)")
NAMED = re.compile(r"score\W{0,5}(\d+(?:\.\d+)?)", re.IGNORECASE)


@dataclass(frozen=True)
class Rubric:
    """template: a Jinja2 file with {{ prompt }}, {{ answer }} and {{ row }} (all columns); None for RUBRIC.

    scale: the least and the greatest score. keep: a row stays from this score on. checks: rows that filters left out and that are
    judged, too. Raises UserError for a template that does not show the answer, and for a threshold outside the scale.
    """

    template: str | None = None
    scale: tuple[float, float] = (1, 5)
    keep: float = 4
    checks: int = 100
    max_new_tokens: int = 16
    seed: int = 0

    def __post_init__(self) -> None:
        least, most = self.scale
        if not least <= self.keep <= most or least == most:
            raise UserError(f"judge.keep={self.keep} must be in judge.scale={[least, most]}, whose ends must differ.")
        if self.checks:
            check_count(self.checks, "judge.checks")
        if not re.search(r"\b(answer|row)\b", self.text):
            raise UserError(f"judge.template={self.template} shows no answer: write {{{{ answer }}}} where it belongs.")

    @property
    def text(self) -> str:
        return (
            RUBRIC if self.template is None else existing(self.template, "judge.template").read_text(encoding="utf-8")
        )

    @property
    def settings(self) -> dict[str, Any]:
        plain = {name: value for name, value in asdict(self).items() if name != "template"}
        return {**plain, "scale": list(self.scale), "template": hashlib.sha256(self.text.encode()).hexdigest()}


class Judge:
    """provider: of labelling. file: of verdicts, JSONL."""

    def __init__(self, provider: Provider, rubric: Rubric, file: Path) -> None:
        from jinja2 import StrictUndefined
        from jinja2.sandbox import SandboxedEnvironment

        self.rubric = rubric
        self._provider, self._file = provider, file
        self._template = SandboxedEnvironment(undefined=StrictUndefined, keep_trailing_newline=True).from_string(
            rubric.text
        )
        self._sampling = Sampling(0.0, 1.0, rubric.max_new_tokens)

    @property
    def settings(self) -> dict[str, Any]:
        return {**self.rubric.settings, "provider": dict(self._provider.identity)}

    def prompt(self, record: Record) -> str:
        """What is asked of a record. Raises UserError for a template that needs what the record does not have."""
        from jinja2 import TemplateError

        least, most = self.rubric.scale
        try:
            return self._template.render(
                prompt=record.prompt, answer=record.answer, row=record.cells, least=f"{least:g}", most=f"{most:g}"
            )
        except TemplateError as error:
            raise UserError(
                f"judge.template={self.rubric.template}: {error}. It is given prompt, answer and row."
            ) from error

    def scores(self, prompts: Sequence[str], progress: Progress) -> list[float | None]:
        """The score of each prompt, None where the answer holds none. Raises UserError where the provider failed."""
        keys = [self._key(prompt) for prompt in prompts]
        verdicts = self._read()
        lacking = {key: prompt for key, prompt in zip(keys, prompts, strict=True) if key not in verdicts}
        failures = self._ask(lacking, verdicts, progress) if lacking else 0
        if failures:
            raise UserError(
                f"the judge failed on {failures} of {len(lacking)} rows; the other verdicts are in {self._file}. Run the same "
                "command again: it asks for the missing ones alone."
            )
        return [score_in(verdicts[key], self.rubric.scale) for key in keys]

    def _ask(self, lacking: Mapping[str, str], verdicts: dict[str, str], progress: Progress) -> int:
        """Ask for what is lacking, and write it as it comes. Returns how many requests failed."""
        keys = [*lacking]
        requests = [Request((("user", prompt),), self.rubric.seed) for prompt in lacking.values()]
        done = failures = 0
        with progress("judge", len(requests)) as advance:
            for answers in self._provider.answers(requests, self._sampling, 0, advance):
                part = dict(zip(keys[done : done + len(answers)], answers, strict=True))
                usable = {key: answer.text for key, answer in part.items() if answer.reason != "failed"}
                self._append(usable)
                verdicts.update(usable)
                done, failures = done + len(answers), failures + len(part) - len(usable)
        return failures

    def _key(self, prompt: str) -> str:
        about = [dict(self._provider.identity), vars(self._sampling), self.rubric.seed, prompt]
        return hashlib.sha256(json.dumps(about, sort_keys=True).encode()).hexdigest()

    def _read(self) -> dict[str, str]:
        """The verdicts that are there; half a line, which a kill leaves, is removed."""
        verdicts: dict[str, str] = {}
        if self._file.exists():
            with self._file.open("rb+") as stream:
                for line in stream:
                    if not line.endswith(b"\n"):
                        stream.truncate(stream.seek(-len(line), os.SEEK_END))
                        break
                    verdict = json.loads(line)
                    verdicts[verdict["key"]] = verdict["verdict"]
        return verdicts

    def _append(self, verdicts: Mapping[str, str]) -> None:
        self._file.parent.mkdir(parents=True, exist_ok=True)
        with self._file.open("a", encoding="utf-8") as stream:
            stream.writelines(
                json.dumps({"key": key, "verdict": text}, ensure_ascii=False) + "\n" for key, text in verdicts.items()
            )
            stream.flush()
            os.fsync(stream.fileno())


def score_in(text: str, scale: tuple[float, float]) -> float | None:
    """The number after the word score, else the first number; None where that is outside the scale."""
    match = NAMED.search(text)
    number = match[1] if match else next(iter(NUMBER.findall(text)), None)
    score = None if number is None else float(number)
    return score if score is not None and scale[0] <= score <= scale[1] else None
