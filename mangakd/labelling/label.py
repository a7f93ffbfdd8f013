"""Prompts of a file → texts of a provider in another file, which `task=response` or `task=rewrite` reads as it is."""

import hashlib
import json
import logging
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from mangakd.core.errors import UserError
from mangakd.core.locks import waiting_lock
from mangakd.data.columns import Column, table_rows
from mangakd.data.rows import NOTHING, Messages, Rows, whole_texts
from mangakd.data.tables import existing, read_table
from mangakd.data.token_files import Progress
from mangakd.labelling.answers import ASKED, ROW, SAMPLE, AnswerFile, Row
from mangakd.labelling.forms import Answers, Form
from mangakd.labelling.label_manifest import file_entry, now, versions, write_manifest
from mangakd.labelling.provider import Answer, Provider, Request
from mangakd.models.sampling import Sampling, seed_of

PACKAGES = ("torch", "transformers", "openai", "anthropic", "boto3")  # that a text may depend on
CUT = ("leave_out", "keep")
log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Options:
    """samples: answers to each prompt. form: what is asked for. cut: what becomes of an answer that max_new_tokens cuts.

    Raises UserError for an option outside its range.
    """

    sampling: Sampling
    samples: int = 1
    seed: int = 0
    form: Form = field(default_factory=Answers)
    cut: str = "leave_out"

    def __post_init__(self) -> None:
        if not isinstance(self.samples, int) or self.samples < 1:
            raise UserError(f"samples={self.samples} must be a whole number from 1 on.")
        if self.samples > 1 and not self.sampling.draws:
            raise UserError(
                f"samples={self.samples} would be equal at temperature=0. Set temperature=1.0, or samples=1."
            )
        if self.cut not in CUT:
            raise UserError(f"cut={self.cut} must be one of {', '.join(CUT)}.")


def read_prompts(path: str | None, names: Mapping[str, str | int], form: Form) -> Rows:
    """names: column of the form → that of the file, where they differ. Raises UserError for a file that cannot be asked."""
    table, origin = read_table(existing(path, "data.path"), "data.path"), f"data.path={path}"
    columns = {name: Column(kind, names.get(name, name), f"data.columns.{name}") for name, kind in form.columns.items()}
    present = {name: each for name, each in columns.items() if each.name != name or table.has(name)}
    if not present.keys() & {*form.needs}:
        present[form.needs[-1]] = columns[form.needs[-1]]
    rows = table_rows(table, present, origin)
    cells = {name: whole_texts(values, rows.numbers, origin, rows.unit) for name, values in rows.columns.items()}
    empty = {name: [NOTHING[kind]] * len(rows) for name, kind in form.columns.items() if name not in cells}
    return Rows({**cells, **empty}, rows.numbers, origin, rows.unit)


def label(
    rows: Rows,
    provider: Provider,
    options: Options,
    out: Path,
    cache: Path,
    progress: Progress,
    data: Path | None = None,
) -> None:
    """Write what `out` lacks, and its manifest. A second process with the same file waits for the first.

    data: the file of the rows.
    """
    source = file_entry(data, out, len(rows))
    prompts = [*options.form.prompts(rows)]
    keys = [
        {ROW: number, SAMPLE: sample, ASKED: _hash(prompt)}
        for number, prompt in zip(rows.numbers, prompts, strict=True)
        for sample in range(options.samples)
    ]
    file = AnswerFile(out, {**provider.identity, **_settings(options)}, keys)
    owners = [i for i in range(len(prompts)) for _ in range(options.samples)]
    requests = [
        Request(prompts[i], seed_of(options.seed, key[ASKED], key[SAMPLE])) for i, key in zip(owners, keys, strict=True)
    ]
    with waiting_lock(cache / "locks" / f"label-{_hash(str(out.resolve()))}", f"writing {out}"):
        done = file.resume()
        if done:
            log.info("%s holds %d answers; resuming after row %d.", out, file.rows, keys[done - 1][ROW])
        lacking: Counter[str] = Counter()
        with progress("label", len(requests) - done) as advance:
            for answers in provider.answers(requests, options.sampling, done, advance):
                usable = dict(_usable(answers, done, options.cut, lacking))
                file.append(
                    {
                        place: _row(options.form.row(rows, owners[place], answer), answer)
                        for place, answer in usable.items()
                    }
                )
                done += len(answers)
        write_manifest(out, _manifest(out, file.rows, source, provider, options))
    _log(lacking, options.sampling)
    print(f"{file.rows} answers to {len(requests)} requests: {out}")


def _manifest(out: Path, rows: int, data: Row | None, provider: Provider, options: Options) -> Row:
    form = options.form
    return {
        "out": file_entry(out, out, rows),
        "data": data,
        "form": {"name": type(form).__name__.lower(), **form.settings},
        "template": file_entry(getattr(form, "template_file", None), out),
        "teacher": dict(provider.identity),
        "sampling": vars(options.sampling),
        **{name: getattr(options, name) for name in ("seed", "samples", "cut")},
        "ledger": None,
        "versions": versions(PACKAGES),
        "date": now(),
    }


def _usable(answers: Sequence[Answer], first: int, cut: str, lacking: Counter[str]) -> Iterator[tuple[int, Answer]]:
    """Answers that a model can learn from, with their places; the others are counted by reason."""
    for place, answer in enumerate(answers, first):
        reason = "empty" if answer.reason == "ended" and not answer.text else answer.reason
        if reason == "ended" or (reason == "cut" and cut == "keep" and answer.text):
            yield place, answer
        else:
            lacking[reason] += 1


def _row(cells: Row, answer: Answer) -> Row:
    return {**cells, "tokens": answer.tokens, "ended": answer.reason == "ended"}


def _log(lacking: Mapping[str, int], sampling: Sampling) -> None:
    words = {
        "cut": f"answers longer than max_new_tokens={sampling.max_new_tokens}, left out (cut=keep keeps them)",
        "empty": "answers without a word, left out",
        "too long": f"prompts that leave no room for max_new_tokens={sampling.max_new_tokens}, left out",
    }
    for reason, count in lacking.items():
        log.warning("%s: %d of this call.", words[reason], count)


def _settings(options: Options) -> dict[str, Any]:
    plain = {name: value for name, value in vars(options).items() if name not in ("sampling", "form")}
    return {**vars(options.sampling), **plain, **options.form.settings}


def _hash(value: Messages | str) -> str:
    return hashlib.sha256(json.dumps(value).encode()).hexdigest()[:16]
