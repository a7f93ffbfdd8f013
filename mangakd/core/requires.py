"""What a loss asks of the two models. The union over all losses decides the taps and what a stored teacher holds."""

from dataclasses import dataclass, field


@dataclass(frozen=True)
class Need:
    """What is wanted from one side: logits, hidden states of layers (0…L) and attention taps of layers (1…L)."""

    logits: bool = False
    hidden: frozenset[int] = field(default_factory=frozenset)
    attention: frozenset[int] = field(default_factory=frozenset)

    def __or__(self, other: "Need") -> "Need":
        return Need(self.logits or other.logits, self.hidden | other.hidden, self.attention | other.attention)

    def missing(self, given: "Need") -> str:
        """What this need asks for beyond `given`, in words; empty when nothing is missing."""
        parts = ["logits"] if self.logits and not given.logits else []
        for name in ("hidden", "attention"):
            lacking = sorted(getattr(self, name) - getattr(given, name))
            if lacking:
                parts.append(f"{name} of layers {lacking}")
        return " and ".join(parts)


@dataclass(frozen=True)
class Requires:
    """A loss's needs from both sides. An empty `teacher` means the loss runs without a teacher."""

    student: Need = field(default_factory=Need)
    teacher: Need = field(default_factory=Need)
    labels: bool = False

    def __or__(self, other: "Requires") -> "Requires":
        return Requires(self.student | other.student, self.teacher | other.teacher, self.labels or other.labels)
