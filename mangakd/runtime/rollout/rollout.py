"""A rollout in service: the plan, its journal, and the counts that Prometheus reads.

A decision takes effect after it is on the disk. If the disk takes no more, a raise waits; a rollback does not.
"""

import logging
import time
from collections import deque
from collections.abc import Callable
from typing import Any

from mangakd.core.errors import UserError
from mangakd.runtime import metrics
from mangakd.runtime.rollout.choice import place
from mangakd.runtime.rollout.journal import Journal, at
from mangakd.runtime.rollout.plan import KINDS, Decision, Plan
from mangakd.runtime.rollout.settings import Settings

log = logging.getLogger("mangakd.rollout")
SIDES = ("student", "incumbent")
TIMES = 2048  # answers of a side in one interval whose times are kept for its percentiles


class Rollout:
    """student: what identifies it; a log belongs to one student. clock: seconds since 1970."""

    def __init__(self, settings: Settings, student: str, clock: Callable[[], float] = time.time):
        self.settings, self._student, self._clock = settings, student, clock
        self.plan = Plan(settings, clock())
        self.journal = Journal(settings.log)
        self._last: dict[str, Any] | None = None
        self._retry = 0.0
        self._closed = False
        self._written = dict(self.plan.counts)
        self.times = {side: deque[float](maxlen=TIMES) for side in SIDES}
        self.decided = metrics.Counter(
            "mangakd_rollout_decisions_total", "Decisions of this process.",
            [{"decision": kind.replace(" ", "_")} for kind in KINDS],
        )  # fmt: skip
        self._start()

    @property
    def share(self) -> float:
        return self.plan.share

    @property
    def over(self) -> bool:
        """Whether the student was rolled back: nothing is compared any more."""
        return self.plan.phase == "rolled back"

    def first(self, request_id: str) -> str:
        """The side that answers."""
        return SIDES[place(self.settings.name, "side", request_id) >= self.share]

    def compares(self, first: str, request_id: str) -> bool:
        """Whether the other side is asked, too: of the student's questions in a canary, of the incumbent's in a shadow."""
        if self.over or first == ("student" if self.settings.shadow else "incumbent"):
            return False
        return place(self.settings.name, "compare", request_id) < self.settings.compare

    def answer(self, side: str, seconds: float, error: bool, tested: bool = True) -> None:
        """Count what a side did with a question. tested: whether the errors' test counts it."""
        self.plan.count(side)
        if error:
            self.plan.count(f"{side}_errors")
        else:
            self.times[side].append(seconds)
        if side == "student" and tested:
            self._decide(self.plan.answer(error, self._clock()))

    def compare(self, agreed: bool) -> None:
        self._decide(self.plan.compare(agreed, self._clock()))

    def drop(self) -> None:
        """Count a comparison that did not happen."""
        self.plan.count("dropped")

    def tick(self) -> None:
        """Decide what only waits for time, and write the counts if they changed. Called every `settings.every` seconds."""
        self._decide(self.plan.due(self._clock()))
        if self.plan.counts == self._written:
            return
        self._written = dict(self.plan.counts)
        line = {**self._line("counts"), "ms": {side: percentiles(times) for side, times in self.times.items()}}
        for times in self.times.values():
            times.clear()
        try:
            self.journal.write(self._state(), self._last, line)
        except OSError as error:
            log.error("the rollout's counts cannot be written: %s", error)

    def close(self) -> None:
        self.tick()
        self._closed = True
        self.journal.close()

    def _start(self) -> None:
        state = self.journal.state()
        event = "start"
        if state is not None:
            self._check_owner(state)
            try:
                self.plan.restore(state)
            except (KeyError, TypeError, ValueError) as error:
                raise UserError(
                    f"{self.journal.file} is damaged ({error!r}). Restore it, or give another log: in the yaml."
                ) from error
            self._last, event = state["last"], "restart"
            if state.get("rules") != self.settings.rules:
                self.plan.change_rules(float(state["share"]), self._clock())
                event = "new rules"
        line = {
            **self._line(event),
            "student": self._student,
            "incumbent": self.settings.incumbent,
            "texts": self.settings.texts,
            "rules": self.settings.rules,
        }
        try:
            self.journal.write(self._state(), self._last, line, sync=True)
        except OSError as error:
            raise UserError(f"{self.journal.log} cannot be written: {error}. Give another log: in the yaml.") from error
        log.info("rollout: %s", event, extra={"fields": {"share": self.share, "phase": self.plan.phase}})

    def _check_owner(self, state: dict[str, Any]) -> None:
        for key, own in (("student", self._student), ("mode", self.settings.mode)):
            if state.get(key) != own:
                raise UserError(
                    f"{self.journal.log} is the rollout of another {key} ({state.get(key)}; this one is {own}). Give another "
                    f"log: in the yaml, or remove it and {self.journal.file.name}."
                )

    def _decide(self, decision: Decision | None) -> None:
        if decision is None or self._closed or (decision.kind in ("raise", "complete") and self._clock() < self._retry):
            return
        now, before = self._clock(), self.plan.state()
        line = self._line("decision") | {
            "decision": decision.kind, "number": self.plan.decisions + 1, "why": decision.why, "from": decision.before,
            "to": decision.after, "seconds": round(now - self.plan.began, 1),
        }  # fmt: skip
        self.plan.apply(decision, now)
        try:
            self.journal.write(self._state(), line, line, sync=True)
        except OSError as error:
            log.error("the rollout's decision cannot be written: %s", error, extra={"fields": line})
            if decision.kind in ("raise", "complete"):
                self.plan.restore(before)
                self._retry = now + self.settings.every
                return
        self._last, self._written = line, dict(self.plan.counts)
        self.decided.add(decision=decision.kind.replace(" ", "_"))
        serious = decision.kind in ("hold", "roll back")
        log.log(logging.WARNING if serious else logging.INFO, "rollout: %s", decision.kind, extra={"fields": line})

    def _line(self, event: str) -> dict[str, Any]:
        plan = self.plan
        return {
            "event": event, "at": at(self._clock()), "mode": self.settings.mode, "phase": plan.phase, "share": plan.share,
            "step": plan.step, "counts": dict(plan.counts), "tests": {name: test.numbers() for name, test in plan.tests.items()},
        }  # fmt: skip

    def _state(self) -> dict[str, Any]:
        return {"student": self._student, "mode": self.settings.mode, "rules": self.settings.rules, **self.plan.state()}


def percentiles(seconds: "deque[float]") -> dict[str, float] | None:
    """p50 and p95 in milliseconds; None without answers."""
    if not seconds:
        return None
    ordered = sorted(seconds)
    return {
        f"p{share}": round(1000 * ordered[min(len(ordered) * share // 100, len(ordered) - 1)], 2) for share in (50, 95)
    }
