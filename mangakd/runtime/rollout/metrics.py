"""The rollout's families on the service's /metrics page. deploy/monitoring has alerts and a dashboard for them."""

from typing import TYPE_CHECKING

from mangakd.runtime import metrics
from mangakd.runtime.rollout.plan import PHASES
from mangakd.runtime.rollout.rollout import SIDES, Rollout

if TYPE_CHECKING:
    from mangakd.runtime.rollout.asking import Asking
    from mangakd.runtime.rollout.compare import Comparer


class Families:
    """fallbacks: questions that the other side had to answer. nobody: questions that neither side answered."""

    def __init__(self, rollout: Rollout, asking: "Asking", comparer: "Comparer"):
        self._rollout, self._asking, self._comparer = rollout, asking, comparer
        self.fallbacks = metrics.Counter(
            "mangakd_rollout_fallbacks_total",
            "Questions that the other side had to answer.",
            [{"to": side} for side in SIDES],
        )
        self.nobody = metrics.Counter(
            "mangakd_rollout_unanswered_total", "Questions that neither side answered: 503.", [{}]
        )

    def page(self) -> str:
        rollout, asking, comparer = self._rollout, self._asking, self._comparer
        plan = rollout.plan
        return metrics.page(
            metrics.gauge("mangakd_rollout_share", "Share of the questions that the student answers.", plan.share),
            metrics.gauges(
                "mangakd_rollout_phase", "1 for the phase of the rollout.", "phase",
                {phase.replace(" ", "_"): phase == plan.phase for phase in PHASES},
            ),
            metrics.gauges(
                "mangakd_rollout_llr", "Log likelihood ratio of a sequential test, in nats.", "test",
                {name: test.llr for name, test in plan.tests.items()},
            ),
            metrics.gauges(
                "mangakd_rollout_llr_limit", "The test fails from this log likelihood ratio on.", "test",
                {name: test.hypotheses.upper(test.number) for name, test in plan.tests.items()},
            ),
            metrics.gauge("mangakd_rollout_expected_agreement", "agreement.expected.", rollout.settings.agreement.expected),
            metrics.gauges(
                "mangakd_rollout_breaker_open", "1 for a side that is left out for now.", "side",
                {side: breaker.open for side, breaker in asking.breakers.items()},
            ),
            metrics.gauge("mangakd_rollout_waiting", "Comparisons that wait.", comparer.waiting),
            *(
                family.lines()
                for family in (
                    rollout.decided, asking.outcomes, asking.seconds, comparer.results, comparer.dropped, self.fallbacks,
                    self.nobody,
                )
            ),
        )  # fmt: skip
