"""Chooses the language model that ships: the fastest variant whose perplexity and right tokens are those of the merged folder,
nearly.

    passes if    perplexity ratio ≤ max_ratio    and    the lower end of the drop's interval ≤ max_drop

The ratio decides by its estimate: it is paired, and on two thousand tokens its interval is a few thousandths wide. The drop of
right tokens counts tokens that change sides, and its interval is wider than the limit of 0.3 points; so a variant fails by it
only if the drop is above the limit for certain. Test scores do not influence the choice.
"""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

from mangakd.export.choose import AS_FAST, ROUNDING
from mangakd.export.language.quality import Quality
from mangakd.export.language.speed import Speed


@dataclass(frozen=True)
class Limits:
    """max_ratio: of perplexities. max_drop: points of right tokens."""

    max_ratio: float
    max_drop: float


@dataclass(frozen=True)
class Comparison:
    """speed: None on test, which measures no times."""

    name: str
    quality: Quality
    speed: Speed | None
    limits: Limits

    @property
    def passed(self) -> bool:
        within = self.quality.ratio.value <= self.limits.max_ratio + ROUNDING
        return self.quality.finite and within and self.quality.drop.interval[0] <= self.limits.max_drop + ROUNDING

    def words(self) -> str:
        if not self.quality.finite:
            return f"{self.name} predicts some tokens with NaN or infinity"
        low, high = self.quality.ratio.interval
        drop, (least, most) = self.quality.drop.value, self.quality.drop.interval
        return (
            f"{self.name} has {self.quality.ratio.value:.4f} × the perplexity [{low:.4f}, {high:.4f}] and {0 - drop:+.2f} "
            f"points of right tokens [{0 - most:+.2f}, {0 - least:+.2f}]"
        )

    def metrics(self) -> dict[str, Any]:
        """The entry in the manifest, under the name of the split, and in export.json."""
        own = self.quality
        return {
            "score": own.right.value, "score_interval": list(own.right.interval), "drop_points": own.drop.value,
            "drop_interval": list(own.drop.interval), "perplexity": own.perplexity.value, "perplexity_ratio": own.ratio.value,
            "ratio_interval": list(own.ratio.interval), "kl": own.kl.value, "kl_interval": list(own.kl.interval),
            "agreement_student": own.agreement.value, "agreement_interval": list(own.agreement.interval), "passed": self.passed,
            **({} if self.speed is None else asdict(self.speed)),
        }  # fmt: skip


@dataclass(frozen=True)
class Choice:
    """name: of the variant that ships. reason: one sentence."""

    name: str
    reason: str


def choose(comparisons: Sequence[Comparison], limits: Limits, merged: str) -> Choice:
    """The smallest of those that pass and are as fast as the fastest of them; `merged` where none passes."""
    candidates = [each for each in comparisons if each.passed]
    words = "; ".join(each.words() for each in comparisons if not each.passed)
    if not candidates:
        return Choice(
            merged, f"No variant passes the limits of {limits.max_ratio:g} × and {limits.max_drop:g} points: {words}."
        )
    fastest = min(map(_milliseconds, candidates))
    best = min((each for each in candidates if _milliseconds(each) <= AS_FAST * fastest), key=_megabytes)
    rest = f" Not passed: {words}." if words else ""
    limit = f"the limits are {limits.max_ratio:g} × and {limits.max_drop:g} points"
    return Choice(best.name, f"{best.words()}; {limit}, and no variant that passes is faster by over 5 %.{rest}")


def _milliseconds(comparison: Comparison) -> float:
    assert comparison.speed is not None, "a choice needs times"
    return comparison.speed.answer_ms["p50"]


def _megabytes(comparison: Comparison) -> float:
    assert comparison.speed is not None, "a choice needs sizes"
    return comparison.speed.megabytes
