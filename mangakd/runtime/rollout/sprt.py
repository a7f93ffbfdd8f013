"""Wald's sequential probability ratio test of a failure rate, repeated for as long as a rollout lasts.

A failure is a comparison in which student and incumbent disagree, or an error of the student. Of each question

    H0: P(failure) ≤ f0        H1: P(failure) ≥ f1 > f0
    λ ← λ + ln(f1 / f0)  for a failure,     λ ← λ + ln((1 − f1) / (1 − f0))  otherwise

The test ends with H1 when λ ≥ ln(1 / α), and with H0 when λ ≤ ln β. Under H0 the likelihood ratio e^λ is a supermartingale that
starts at 1, so P(λ ever ≥ ln(1 / α)) ≤ α for any number of questions (Ville 1939), and likewise P(H0 | f1) ≤ β. Wald's own
bounds, ln((1 − β) / α) and ln(β / (1 − α)), hold only approximately; these are a little wider and hold exactly.

A service is watched for weeks, so a test that ends with H0 starts again, and each start is one more chance of a false alarm. Test
number i = 1, 2, … of a rollout therefore spends α_i = α · 6 / (π² i²) only. Σ α_i = α, so by the union bound the whole rollout,
with all its steps and repetitions, raises a false alarm with probability at most α. The price: the bound grows by 2 ln i.

Sources: A. Wald, Sequential Tests of Statistical Hypotheses, Ann. Math. Statist. 16 (1945) 117–186; J. Ville, Étude critique de
la notion de collectif (1939), for the inequality. The α_i are alpha spending with weights 1 / i², whose sum is π² / 6 (Euler).
"""

import math
from dataclasses import dataclass, field
from typing import Literal

Verdict = Literal["H0", "H1"]


@dataclass(frozen=True)
class Hypotheses:
    """f0: the failure rate that is fine. f1: the failure rate that must be noticed.

    alpha: P(H1 at any time of the rollout) if the rate is f0 or less. beta: P(H0) in one test if the rate is f1 or more.
    """

    f0: float
    f1: float
    alpha: float
    beta: float

    @property
    def failure(self) -> float:
        """What a failure adds to λ, in nats."""
        return math.log(self.f1 / self.f0)

    @property
    def success(self) -> float:
        """What a success adds to λ, in nats; negative."""
        return math.log((1 - self.f1) / (1 - self.f0))

    @property
    def lower(self) -> float:
        return math.log(self.beta)

    def upper(self, number: int) -> float:
        """Of test `number`, counted from 1: ln(1 / α_i)."""
        return math.log(math.pi**2 * number**2 / (6 * self.alpha))


@dataclass
class Test:
    """One family of tests and where it stands. number: of the current test in the rollout. llr: λ. n, failures: of this test.

    passes: tests of this step that ended with H0.
    """

    hypotheses: Hypotheses
    number: int = 1
    llr: float = 0.0
    n: int = 0
    failures: int = 0
    passes: int = field(default=0)

    __test__ = False  # pytest collects classes of this name

    def observe(self, failure: bool) -> Verdict | None:
        """Count one question. H0 starts the next test; after H1 the caller decides."""
        self.n += 1
        self.failures += failure
        self.llr += self.hypotheses.failure if failure else self.hypotheses.success
        if self.llr >= self.hypotheses.upper(self.number):
            return "H1"
        if self.llr <= self.hypotheses.lower:
            self.passes += 1
            self._next()
            return "H0"
        return None

    def begin_step(self) -> None:
        """Forget this step's evidence. The α of a test that was not finished is spent."""
        self.passes = 0
        if self.n:
            self._next()

    def numbers(self) -> dict[str, float]:
        """What a log line and the state file hold."""
        return {
            "test": self.number, "n": self.n, "failures": self.failures, "llr": round(self.llr, 6), "passes": self.passes,
            "lower": round(self.hypotheses.lower, 4), "upper": round(self.hypotheses.upper(self.number), 4),
        }  # fmt: skip

    def restore(self, numbers: dict[str, float]) -> None:
        self.number, self.n = int(numbers["test"]), int(numbers["n"])
        self.failures, self.passes = int(numbers["failures"]), int(numbers["passes"])
        self.llr = float(numbers["llr"])

    def _next(self) -> None:
        self.number, self.llr, self.n, self.failures = self.number + 1, 0.0, 0, 0
