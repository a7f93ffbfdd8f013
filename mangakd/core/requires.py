"""What a loss asks of the two models. The union over all losses decides the taps and what a stored teacher holds."""

from dataclasses import dataclass, field

from mangakd.core.spec import KINDS, Head, Kind


@dataclass(frozen=True)
class Need:
    """What is wanted from one side: the head's answer, hidden states of layers (0…L) and attention taps of layers (1…L).

    answer: logits, vectors or tokens, whichever the head gives.
    """

    answer: bool = False
    hidden: frozenset[int] = field(default_factory=frozenset)
    attention: frozenset[int] = field(default_factory=frozenset)

    def __or__(self, other: "Need") -> "Need":
        return Need(self.answer or other.answer, self.hidden | other.hidden, self.attention | other.attention)

    def missing(self, given: "Need") -> str:
        """What this need asks for beyond `given`, in words; empty when nothing is missing."""
        parts = ["answers"] if self.answer and not given.answer else []
        for name in ("hidden", "attention"):
            lacking = sorted(getattr(self, name) - getattr(given, name))
            if lacking:
                parts.append(f"{name} of layers {lacking}")
        return " and ".join(parts)


@dataclass(frozen=True)
class Fits:
    """The heads that a loss can learn from. kinds: all by default.

    classes: it compares probabilities of classes. The softmax of one output is 1 whatever the model says, so such a loss and its
    gradient would be 0.
    """

    kinds: tuple[Kind, ...] = KINDS
    classes: bool = False

    def misfit(self, head: Head) -> str:
        """Why it cannot learn from this head, in words; empty when it can."""
        if head.kind not in self.kinds:
            return f"needs a head of {' or '.join(self.kinds)}; the head is {head}"
        if self.classes and head.outputs < 2 and not head.several:
            return "compares probabilities of classes; the head has one output, whose probability is always 1"
        return ""


CLASSES = Fits(("labels",), classes=True)


@dataclass(frozen=True)
class Requires:
    """A loss's needs from both sides. An empty `teacher` means the loss runs without a teacher."""

    student: Need = field(default_factory=Need)
    teacher: Need = field(default_factory=Need)
    labels: bool = False

    def __or__(self, other: "Requires") -> "Requires":
        return Requires(self.student | other.student, self.teacher | other.teacher, self.labels or other.labels)
