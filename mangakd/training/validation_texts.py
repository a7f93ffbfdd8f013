"""Texts that the student writes for validation rows while it is trained, and their scores."""

from dataclasses import dataclass

from mangakd.core import ranks
from mangakd.data.encoded import EncodedSplit
from mangakd.evaluation.judge import Judge
from mangakd.models.encoder import Encoder
from mangakd.tasks.base import Samples


@dataclass(frozen=True)
class ValidationTexts:
    """samples: of rows of `split`. every: epochs between two passes. The first rank writes for all."""

    samples: Samples
    split: EncodedSplit
    judge: Judge
    every: int

    def scores(self, student: Encoder, epoch: int) -> dict[str, float]:
        """Of epoch 0, 1, …; {} in epochs without a pass."""
        if (epoch + 1) % self.every:
            return {}
        return ranks.share(self._scores(student) if ranks.is_first() else {})

    def _scores(self, student: Encoder) -> dict[str, float]:
        texts = self.samples.write(student, lambda texts: None)
        answers = {name: each.numpy() for name, each in self.samples.answers(texts, len(self.split)).items()}
        return self.judge.values(student.spec.head, answers, self.split.columns)
