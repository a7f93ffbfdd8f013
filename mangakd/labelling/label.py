"""Rows of a file → what a provider answers to each, in another file that a task reads as it is."""

import hashlib
import json
import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from mangakd.core.errors import UserError
from mangakd.core.files import sync_folder
from mangakd.core.locks import waiting_lock
from mangakd.data.columns import Column, table_rows
from mangakd.data.rows import NOTHING, Messages, Rows, whole_texts
from mangakd.data.tables import existing, read_table
from mangakd.data.token_files import Progress
from mangakd.labelling import remembered
from mangakd.labelling.answers import ASKED, DOCUMENT, ROW, SAMPLE, AnswerFile, Row
from mangakd.labelling.api.estimate import estimate, words
from mangakd.labelling.api.provider import Api
from mangakd.labelling.forms import Answers, Form, Reads, Unusable
from mangakd.labelling.label_manifest import file_entry, now, versions, write_manifest
from mangakd.labelling.provider import Answer, Provider, Request
from mangakd.labelling.reading import Reading
from mangakd.labelling.remembered import Notes, no_notes
from mangakd.labelling.schemas import Schema
from mangakd.labelling.totals import manifest_entry
from mangakd.labelling.unusable import UnusableFile
from mangakd.models.sampling import Sampling, seed_of

PACKAGES = ("torch", "transformers", "openai", "anthropic", "boto3")  # that a text may depend on
log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Options:
    """samples: answers to each prompt. form: what is asked for. cut, thought, schema: how answers are read (reading.py).

    Raises UserError for an option outside its range.
    """

    sampling: Sampling
    samples: int = 1
    seed: int = 0
    form: Form = field(default_factory=Answers)
    cut: str = "leave_out"
    thought: str = "strip"
    schema: Schema | None = None

    def __post_init__(self) -> None:
        if not isinstance(self.samples, int) or self.samples < 1:
            raise UserError(f"samples={self.samples} must be a whole number from 1 on.")
        if self.samples > 1 and not self.sampling.draws:
            raise UserError(
                f"samples={self.samples} would be equal at temperature=0. Set temperature=1.0, or samples=1."
            )
        most, name = self.form.most_samples, type(self.form).__name__
        if most is not None and self.samples > most:
            raise UserError(f"samples={self.samples}: {name} of a row are the same in each sample. Set samples={most}.")
        _ = self.reading

    @property
    def reading(self) -> Reading:
        return Reading(self.form, self.cut, self.thought, self.schema)

    @property
    def settings(self) -> dict[str, Any]:
        """What an answer depends on, and what its row does, as plain values."""
        own = {"samples": self.samples, "seed": self.seed, "cut": self.cut}
        if self.thought != "strip":
            own["thought"] = self.thought
        if self.schema is not None:
            own["schema"] = self.schema.sha256
        sampling = {name: value for name, value in vars(self.sampling).items() if name != "min_new_tokens" or value}
        return {**sampling, **own, **self.form.settings}


def read_prompts(path: str | None, names: Mapping[str, str | int], form: Reads) -> Rows:
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
    notes: Notes = no_notes,
) -> None:
    """Write what `out` lacks, and its manifest. A second process with the same file waits for the first.

    A provider that remembers is asked what its ledger lacks, by several processes at a time where there are some, and `out` is
    written anew. data: the file of the rows. notes: progress with the cost, of such a provider.
    """
    source = file_entry(data, out, len(rows))
    form, reading = options.form, options.reading
    rows = form.requests(rows)
    keys, requests = _requests(rows, options)
    lock = cache / "locks" / f"label-{_hash(str(out.resolve()))}"
    if isinstance(provider, Api):
        _label_remembered(rows, provider, options, out, lock, (keys, requests), source, notes)
        return
    file, unusable = AnswerFile(out, {**provider.identity, **options.settings}, keys), UnusableFile(out, keys)
    with waiting_lock(lock, f"writing {out}"):
        done = file.resume()
        unusable.resume(done)
        if done:
            log.info("%s holds %d answers; resuming after row %d.", out, file.rows, keys[done - 1][ROW])
        with progress("label", len(requests) - done) as advance:
            for answers in provider.answers(requests, options.sampling, done, advance):
                good, bad = _read(reading, rows, answers, done, options.samples)
                unusable.add(bad)
                file.append(good)
                done += len(answers)
        write_manifest(out, _manifest(out, file.rows, source, provider, options))
    _report(file, unusable, options, out, len(requests))


def _label_remembered(
    rows: Rows,
    api: Api,
    options: Options,
    out: Path,
    lock: Path,
    job: tuple[list[Row], list[Request]],
    source: Row | None,
    notes: Notes,
) -> None:
    """job: the keys of the requests, and the requests. Raises UserError where a budget ends first, after `out` is written."""
    keys, requests = job
    out.parent.mkdir(parents=True, exist_ok=True)
    remembered.check_out(out)
    with api.opened(requests, options.sampling, remembered.ledger_path(api, out)) as ledger:
        halt = remembered.ask(api, ledger, options.sampling, notes)
        with waiting_lock(lock, f"writing {out}"):
            fresh = out.with_name(out.name + ".partial")
            fresh.unlink(missing_ok=True)
            file, unusable = AnswerFile(fresh, {**api.identity, **options.settings}, keys), UnusableFile(out, keys)
            file.resume()
            unusable.resume(0)
            for first, answers in remembered.answers(api, ledger):
                good, bad = _read(options.reading, rows, answers, first, options.samples)
                unusable.add(bad)
                file.append(good)
            fresh.replace(out)
            sync_folder(out.parent)
            entry = manifest_entry(ledger, remembered.ledger_path(api, out), out, api.currency)
            write_manifest(out, {**_manifest(out, file.rows, source, api, options), "ledger": entry})
        _report(file, unusable, options, out, len(requests))
        remembered.report(api, ledger)
        remembered.raise_halt(halt, ledger, api.currency)


def dry_run(rows: Rows, api: Api, options: Options, out: Path) -> str:
    """What `label` would ask of an API and what it would cost, in lines. Asks nothing, writes nothing and needs no key."""
    _, requests = _requests(options.form.requests(rows), options)
    return words(estimate(api, requests, options.sampling, remembered.ledger_path(api, out)), api)


def _report(file: AnswerFile, unusable: UnusableFile, options: Options, out: Path, requests: int) -> None:
    unusable.report(_words(options.sampling))
    print(f"{file.rows} {'answers' if isinstance(options.form, Answers) else 'rows'} to {requests} requests: {out}")


def _requests(rows: Rows, options: Options) -> tuple[list[Row], list[Request]]:
    """What tells each request of `rows` from the others in a file, and the requests, by row and sample."""
    form, content = options.form, options.schema.content if options.schema else None
    keys: list[Row] = []
    requests: list[Request] = []
    for i, prompt in enumerate(form.prompts(rows)):
        prompt_hash = _hash(prompt)
        document = {DOCUMENT: rows[DOCUMENT][i]} if DOCUMENT in rows else {}
        for sample in range(options.samples):
            keys.append({ROW: rows.numbers[i], **document, SAMPLE: sample, ASKED: prompt_hash})
            requests.append(Request(prompt, seed_of(options.seed, prompt_hash, sample), content, form.choices))
    return keys, requests


def _read(
    reading: Reading, rows: Rows, answers: Sequence[Answer], first: int, samples: int
) -> tuple[dict[int, Sequence[Row]], dict[int, tuple[Answer, Unusable]]]:
    """By the place of the request: what the rows of its answer hold, or why the answer has none."""
    good: dict[int, Sequence[Row]] = {}
    bad: dict[int, tuple[Answer, Unusable]] = {}
    for place, answer in enumerate(answers, first):
        try:
            good[place] = reading.rows(rows, place // samples, answer)
        except Unusable as why:
            bad[place] = answer, why
    return good, bad


def _manifest(out: Path, rows: int, data: Row | None, provider: Provider, options: Options) -> Row:
    form = options.form
    return {
        "out": file_entry(out, out, rows),
        "data": data,
        "form": {"name": type(form).__name__.lower(), **form.settings},
        "template": file_entry(form.template_file, out),
        "teacher": dict(provider.identity),
        "sampling": vars(options.sampling),
        **{name: getattr(options, name) for name in ("seed", "samples", "cut")},
        "ledger": None,
        "versions": versions(PACKAGES),
        "date": now(),
    }


def _words(sampling: Sampling) -> dict[str, str]:
    """Reason → what a message says of it."""
    return {
        "cut": f"answers longer than max_new_tokens={sampling.max_new_tokens}, left out (cut=keep keeps them)",
        "empty": "answers without a word, left out",
        "too long": f"prompts that leave no room for max_new_tokens={sampling.max_new_tokens}, left out",
        "refused": "answers that the provider refused",
        "failed": "requests without an answer after all attempts",
    }


def _hash(value: Messages | str) -> str:
    return hashlib.sha256(json.dumps(value).encode()).hexdigest()[:16]
