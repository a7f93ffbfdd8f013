"""What asking would cost, before anything is asked (`dry_run=true`)."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from mangakd.labelling.api.prices import tokens_of
from mangakd.labelling.api.provider import Api
from mangakd.labelling.ledger import Ledger
from mangakd.labelling.owners import Owner
from mangakd.labelling.provider import Request
from mangakd.models.sampling import Sampling


@dataclass(frozen=True)
class Estimate:
    """requests: that would be asked, equal ones once. tokens_in, tokens_out: of them all; most_out: at most. counted: answers
    of the ledger that the numbers come from, 0 for the rule without a tokenizer, at max_new_tokens for each answer.

    cost, most: expected and at most; None where the price is unknown.
    """

    requests: int
    held: int
    tokens_in: int
    tokens_out: int
    most_out: int
    counted: int
    cost: float | None
    most: float | None


def estimate(api: Api, requests: Sequence[Request], sampling: Sampling, path: Path) -> Estimate:
    """Reads the ledger where there is one, and makes none."""
    known: set[str] = set()
    factor, mean, counted = 1.0, float(sampling.max_new_tokens), 0
    if path.is_file():
        ledger = Ledger(path, Owner())
        try:
            known = {key for (key,) in ledger.query("SELECT key FROM requests WHERE state = 'answered'")}
            factor, mean, counted = _measured(ledger, api, mean)
        finally:
            ledger.close()
    plan = {each.key: tokens_of(each.body) for each in api.plan(requests, sampling)}
    sizes = [size for key, size in plan.items() if key not in known]
    tokens_in, most_out = round(factor * sum(sizes)), len(sizes) * sampling.max_new_tokens
    tokens_out = min(round(mean * len(sizes)), most_out)
    price = api.cost
    cost = None if price is None else price.cost(tokens_in, tokens_out, batch=api.batch)
    most = None if price is None else price.cost(tokens_in, most_out, batch=api.batch)
    return Estimate(len(sizes), len(plan) - len(sizes), tokens_in, tokens_out, most_out, counted, cost, most)


def _measured(ledger: Ledger, api: Api, mean: float) -> tuple[float, float, int]:
    """Tokens that the provider has counted over those of the rule, tokens of an answer, and how many answers say so."""
    rows = ledger.query(
        "SELECT tokens_in, tokens_out, body FROM requests JOIN bodies USING (key) WHERE state = 'answered' AND NOT estimated "
        "AND provider = ? AND model = ? ORDER BY answered_at DESC LIMIT 1000", (api.wire.name, api.wire.model)
    )  # fmt: skip
    if not rows:
        return 1.0, mean, 0
    rule = sum(tokens_of(body) for _, _, body in rows)
    return sum(row[0] for row in rows) / rule, sum(row[1] for row in rows) / len(rows), len(rows)


def words(each: Estimate, api: Api) -> str:
    """The estimate in lines."""
    origin = (
        f"as {each.counted} answers in the ledger have" if each.counted
        else "by the rule of 4 characters a token, answers as long as max_new_tokens allows"
    )  # fmt: skip
    lines = [
        f"{each.requests} requests would be asked; the ledger holds {each.held} answers.",
        f"tokens in {each.tokens_in:,}, out {each.tokens_out:,} (at most {each.most_out:,}), {origin}.",
    ]
    if each.cost is None:
        lines.append(
            f"cost unknown: no price of {api.wire.model}. Set provider.price.input and provider.price.output, per million tokens."
        )
    else:
        lines.append(f"cost {each.cost:.4g} {api.currency}, at most {each.most:.4g}: {api.cost}.")
    return "\n".join([*lines, "dry_run=true: nothing was asked."])
