"""How many questions does a rollout need until it decides, and how often is it wrong?

    python benchmarks/rollout.py export/onnx_int8_static

First simulated: conf/rollout/canary.yaml, a stream of questions whose request ids choose the side, and a student that agrees with
the incumbent as often as expected, 2 or 10 points less often, or that dies. The choice, the tests and the decisions are the
service's own code; only the answers are drawn. Then each kind of student once over HTTP (rollout_http.py).

Exits with 1 if an equal student is rolled back in more than 5 % of the runs, a student that is 10 points worse is not rolled back
in 95 %, or a question is lost over HTTP.
"""

from __future__ import annotations

import argparse
import random
import statistics
import sys
import tempfile
from dataclasses import replace
from importlib.metadata import version
from pathlib import Path
from typing import Any

from results_file import table, write
from rollout_http import KINDS as HTTP_KINDS
from rollout_http import run_http

from mangakd.runtime.rollout.breaker import Breaker
from mangakd.runtime.rollout.choice import place
from mangakd.runtime.rollout.plan import Decision, Plan
from mangakd.runtime.rollout.settings import Settings, Step, read

CANARY = Path(__file__).resolve().parents[1] / "conf" / "rollout" / "canary.yaml"
FALLS = {"equal": 0.0, "2 % worse": 0.02, "10 % worse": 0.10, "dies": 0.0}
MOST, AFTER = 400_000, 20_000  # questions of a run; and of a completed rollout, which is watched on
RATE = 50.0  # questions a second, for the breaker's clock
DEATH = 30_000  # the student dies at a question up to this number
END = {"equal": "complete", "2 % worse": "hold", "10 % worse": "roll back", "dies": "roll back"}


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("folder", type=Path, help="an exported classifier, for the runs over HTTP")
    options.add_argument("--runs", type=int, default=400, help="simulated, of each kind of student")
    options.add_argument("--requests", type=int, default=60_000, help="at most, of a run over HTTP")
    arguments = options.parse_args()
    settings = replace(read(CANARY, "http://incumbent"), step=Step(seconds=0, samples=300))
    simulated = {
        kind: summary(kind, [simulate(kind, settings, seed) for seed in range(arguments.runs)]) for kind in FALLS
    }
    with tempfile.TemporaryDirectory() as scratch:
        real = {kind: run_http(kind, arguments.folder, Path(scratch), arguments.requests) for kind in HTTP_KINDS}
    report(arguments.runs, settings, simulated, real)
    if faults := wrong(simulated, real):
        sys.exit("\n".join(faults))


def simulate(kind: str, settings: Settings, seed: int) -> dict[str, Any]:
    """The decisions of one rollout: [(decision, question, comparisons so far)], with the question of the death."""
    chance, plan, decisions = random.Random(f"{kind} {seed}"), Plan(settings, 0.0), []
    agrees, errors = settings.agreement.expected - FALLS[kind], settings.errors.expected
    death = chance.randrange(DEATH) if kind == "dies" else MOST
    now, compared, end = 0.0, 0, MOST
    breaker = Breaker(settings.breaker, lambda: now)

    def settle(decision: Decision | None, question: int) -> None:
        if decision is not None:
            plan.apply(decision, now)
            decisions.append((decision.kind, question, compared))

    for i in range(MOST):
        now, request = i / RATE, f"{seed}-{i}"
        if plan.phase == "rolled back" or i >= end:
            break
        if place(settings.name, "side", request) >= plan.share or not breaker.allows():
            continue
        failed = i >= death or chance.random() < errors
        breaker.note(failed)
        settle(plan.answer(failed, now), i + 1)
        if not failed and place(settings.name, "compare", request) < settings.compare:
            compared += 1
            settle(plan.compare(chance.random() < agrees, now), i + 1)
        if end == MOST and plan.phase in ("held", "complete") and kind != "dies":
            end = i + AFTER
    return {"decisions": decisions, "death": death}


def summary(kind: str, runs: list[dict[str, Any]]) -> dict[str, Any]:
    """Shares of the decisions over a run, and the questions until the decision that this kind of student should get."""
    names = [{name for name, _, _ in run["decisions"]} for run in runs]
    shares = {
        name: sum(name in each for each in names) / len(runs) for name in ("raise", "complete", "hold", "roll back")
    }
    ends = [next(((i, n) for name, i, n in run["decisions"] if name == END[kind]), None) for run in runs]
    since = [run["death"] if kind == "dies" else 0 for run in runs]
    questions = [end[0] - start for end, start in zip(ends, since, strict=True) if end is not None]
    compared = [end[1] for end in ends if end is not None]
    return {"decision": END[kind], "shares": shares, "questions": spread(questions), "compared": spread(compared)}


def spread(values: list[int]) -> dict[str, float]:
    ordered = sorted(values)
    return {
        "mean": statistics.mean(values), "sd": statistics.stdev(values), "p5": ordered[len(values) // 20],
        "median": ordered[len(values) // 2], "p95": ordered[len(values) * 19 // 20],
    }  # fmt: skip


def wrong(simulated: dict[str, Any], real: dict[str, Any]) -> list[str]:
    faults = []
    if simulated["equal"]["shares"]["roll back"] > 0.05:
        faults.append(f"an equal student is rolled back in {simulated['equal']['shares']['roll back']:.1%} of the runs")
    for kind in ("10 % worse", "dies"):
        if simulated[kind]["shares"]["roll back"] < 0.95:
            faults.append(f"a student that {kind} is rolled back in {simulated[kind]['shares']['roll back']:.1%} only")
    for kind, run in real.items():
        if run["lost"] or run["decision"] != END[kind]:
            faults.append(f"over HTTP, {kind}: {run}")
    return faults


def report(runs: int, settings: Settings, simulated: dict[str, Any], real: dict[str, Any]) -> None:
    head = ("student", "decision", "questions: mean ± sd", "5–95 %", "comparisons", "completed", "held", "rolled back")
    rows = [
        [
            kind, one["decision"], "{mean:,.0f} ± {sd:,.0f}".format(**one["questions"]),
            "{p5:,}–{p95:,}".format(**one["questions"]), "{mean:,.0f} ± {sd:,.0f}".format(**one["compared"]),
            *(f"{one['shares'][name]:.1%}" for name in ("complete", "hold", "roll back")),
        ]
        for kind, one in simulated.items()
    ]  # fmt: skip
    http = [
        [
            kind, run["decision"], f"{run['questions']:,}", str(run["lost"]), str(run["retried"]),
            " → ".join(f"{share:g}" for share in run["shares"]),
        ]
        for kind, run in real.items()
    ]  # fmt: skip
    rules = settings.rules
    agreement, errors, test = (rules[key] for key in ("agreement", "errors", "test"))
    body = f"""`conf/rollout/canary.yaml`: steps {rules["steps"]}, half of the student's questions are compared, agreement
{agreement["expected"]} expected, {agreement["hold"]} less holds, {agreement["rollback"]} less rolls back, errors over
{errors["rollback"]} roll back; alpha {test["alpha"]}, beta {test["beta"]}. Without `step.seconds`, which waits longer.

{runs} simulated rollouts of each kind. Questions: all of the service, until the decision of the row; of a student that dies,
since its death, which is at a random question up to {DEATH:,}. The shares count every run in which that decision fell at any
time, also in the {AFTER:,} questions after completion or hold.

{table(head, rows)}

One rollout of each kind over HTTP: real processes, 8 clients, and twice in the middle a restart: SIGTERM, then SIGKILL. The
steps are 25 %, 50 %, 100 %, and all of the student's questions are compared, which takes a tenth of the questions. A
question that gets no answer because the process is gone is asked again by its client under the same id; a question that never
gets one is lost.

{table(("student", "decision", "questions", "lost", "asked again", "shares"), http)}"""
    content = {"versions": {name: version(name) for name in ("numpy", "fastapi", "uvicorn", "httpx")}, "rules": rules,
               "runs": runs, "simulated": simulated, "http": real}  # fmt: skip
    print(write("rollout", "Rollout", content, body).read_text(encoding="utf-8"))


if __name__ == "__main__":
    main()
