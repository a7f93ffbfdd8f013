"""The flow of `label` for a provider whose ledger keeps its answers: ask what it lacks, then write `out` anew."""

import logging
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path

from mangakd.core.errors import UserError
from mangakd.data.json_text import parse
from mangakd.labelling.answers import BY
from mangakd.labelling.api.provider import Api, Halt
from mangakd.labelling.ledger import Ledger
from mangakd.labelling.provider import Answer
from mangakd.labelling.totals import Totals, totals
from mangakd.models.sampling import Sampling

SUFFIX = ".ledger.sqlite"
Notes = Callable[[str, int], AbstractContextManager[Callable[[int, str], object]]]
"""title, total → a function that shows how many are done, and a note."""
log = logging.getLogger(__name__)


def ledger_path(api: Api, out: Path) -> Path:
    return api.ledger or out.with_name(out.name + SUFFIX)


@contextmanager
def no_notes(title: str, total: int) -> Iterator[Callable[[int, str], object]]:
    yield lambda done, note: None


def ask(api: Api, ledger: Ledger, sampling: Sampling, notes: Notes) -> Halt | None:
    """Ask, with the cost beside the bar."""
    count = totals(ledger).requests
    with notes("label", count) as show:
        return api.ask(
            ledger, sampling, lambda each: show(each.answers + each.failed, note(each, api.currency)), log.info
        )


def note(each: Totals, currency: str) -> str:
    """Cost so far and expected, and what went wrong."""
    parts = []
    if each.cost is not None and each.answers:
        expected = each.cost + each.open * each.cost / each.answers
        parts.append(f"{each.cost:.4g} of {expected:.4g} {currency}")
    if each.cost_uncertain:
        parts.append(f"{each.cost_uncertain:.4g} {currency} uncertain")
    for name in ("refused", "failed"):
        if getattr(each, name):
            parts.append(f"{getattr(each, name)} {name}")
    return ", ".join(parts) or "requests"


def check_out(out: Path) -> None:
    """Raises UserError for a file whose rows are in no ledger: writing `out` anew would lose them."""
    if not out.is_file():
        return
    with out.open(encoding="utf-8", errors="replace") as stream:
        line = stream.readline()
    try:
        known = not line.strip() or "base_url" in parse(line)[BY]
    except (ValueError, KeyError, TypeError):
        known = False
    if not known:
        raise UserError(
            f"out={out} was not written by an API's answers, and would be overwritten. Give another file: out=…."
        )


def answers(api: Api, ledger: Ledger) -> Iterator[tuple[int, list[Answer]]]:
    """The place of a first request, with the answers from it on, until one that nobody has asked; `failed` for failed ones."""
    first = 0
    for chunk in api.recorded(ledger):
        start: int | None = None
        part: list[Answer] = []
        for place, answer in enumerate(chunk, first):
            if answer is None and part:
                yield start or 0, part
                start, part = None, []
            elif answer is not None:
                start = place if start is None else start
                part.append(answer)
        if part:
            yield start or 0, part
        first += len(chunk)


def report(api: Api, ledger: Ledger) -> None:
    """What the ledger holds of this job, and why requests have failed."""
    _log_failures(ledger)
    print(summary(ledger, api.currency))


def summary(ledger: Ledger, currency: str) -> str:
    """One line on what the ledger holds of this job."""
    each = totals(ledger)
    parts = [f"{each.answers} answers to {each.requests} different requests"]
    cost = "cost unknown" if each.cost is None else f"{each.cost:.6g} {currency}"
    parts.append(f"{each.tokens_in:,} tokens in and {each.tokens_out:,} out, {cost}")
    if each.estimated:
        parts.append(f"{each.estimated} answers without a usable token count, which are estimates")
    if each.uncertain:
        most = "" if each.cost_uncertain is None else f", {each.cost_uncertain:.4g} {currency} at most"
        parts.append(f"{each.uncertain} attempts that may have been paid for without an answer{most}")
    return f"ledger {ledger.file}: " + "; ".join(parts)


def _log_failures(ledger: Ledger) -> None:
    """The commonest errors of failed requests."""
    rows = ledger.query(
        "SELECT substr(error, 1, 200), count(*), max(final) FROM requests WHERE state = 'failed' "
        "AND key IN (SELECT key FROM job) GROUP BY 1 ORDER BY 2 DESC LIMIT 3"
    )
    for error, count, final in rows:
        again = "provider.ask_rejected=true asks them again" if final else "the same command asks them again"
        log.warning("%d requests have failed (%s): %s", count, again, error)


def raise_halt(halt: Halt | None, ledger: Ledger, currency: str) -> None:
    """Raises UserError for a budget, SystemExit for a signal."""
    if halt is None:
        return
    left = totals(ledger).open
    way = f"{left} requests are open. The same command goes on, and asks nothing again that is answered"
    if halt.signal is not None:
        log.warning("stopped: %s.", way)
        raise SystemExit(128 + halt.signal)
    whole = totals(ledger, job=False)
    spent = "" if whole.cost is None else f" ({ledger.file} holds {whole.cost:.6g} {currency}"
    spent += (
        f", and {whole.cost_uncertain:.4g} that may have been paid)" if whole.cost_uncertain else ")" if spent else ""
    )
    raise UserError(f"{halt.reason}{spent}: {way}. Raise the budget, or leave it out.")
