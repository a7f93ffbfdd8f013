"""Next tokens of a language model: a divergence from the teacher's distribution, and cross-entropy with the text.

Formula, with p = softmax(z_teacher / T), q = softmax(z_student / T) and the text's token y, summed over target tokens:

    sum = Σ (1 − alpha) · −log softmax(z_student)[y] + alpha · T² · D        count = target tokens

    divergence        D
    forward_kl        KL(p‖q)                                                  the default
    reverse_kl        KL(q‖p)                                                  mode-seeking
    jsd               β KL(p‖m) + (1 − β) KL(q‖m),  m = β p + (1 − β) q        β = jsd_beta
    skew_kl           KL(p‖m),  m = λ p + (1 − λ) q                            λ = skew
    skew_reverse_kl   KL(q‖m),  m = (1 − λ) p + λ q                            λ = skew
    total_variation   ½ Σ |p − q|

The teacher answers with states (exact), with its K best tokens and the mass of all others (K + 1 buckets: a true divergence, at
most the exact one), or with N drawn tokens: only forward_kl, estimated without bias as cross-entropy with the draws, which is
larger than KL by the teacher's entropy and has the same gradient.

alpha is an option of this loss, not the weights of two losses: both terms share the logits of a chunk of tokens and the gradient
that is formed in the forward pass, so that logits of all tokens never exist (chunked.py).

Shapes: tokens (P, …) of both models (core/token_logits.py), selected from states (B, S, D); next (P) int64. P target tokens of
the B rows, S tokens of a row, D hidden size.

Texts that the student wrote (distill.lmbda) have alpha = 1: cross-entropy with them would teach a model to be sure of whatever it
writes, its mistakes included. `own_text` is logged as 1 for them, and as 0 for given texts.

Source: Hinton et al. 2015 (arXiv:1503.02531); jsd: Agarwal et al. 2024 (arXiv:2306.13649); skewed: Ko et al. 2024
(arXiv:2402.03898); total_variation: Wen et al. 2023 (arXiv:2307.15190); draws: Anshumann et al. 2025 (arXiv:2503.16870).

Deviations: T² as in `output`; TRL 1.16 and the papers on language models leave it out. jsd / β tends to forward KL as β → 0 and
jsd / (1 − β) to reverse KL as β → 1; TRL replaces jsd by the plain divergences at the ends. The sum is divided by the target
tokens of the whole optimizer step, not of a micro-batch.
"""

from collections.abc import Sequence
from math import isclose, isfinite
from typing import ClassVar

from mangakd.core.errors import UserError
from mangakd.core.outputs import OWN_TEXT, Batch, Outputs
from mangakd.core.requires import Fits, Need, Requires
from mangakd.core.schedule import Schedule, at
from mangakd.core.spec import ModelSpec
from mangakd.core.token_logits import Draws, FromStates, TokenAnswer, TokenLogits, TopK
from mangakd.losses.aligned import check_same_vocabulary
from mangakd.losses.base import LossCallback, LossOutput, ends
from mangakd.losses.chunked import Terms, token_terms
from mangakd.losses.token_divergence import NAMES, divergence


class TokensLoss(LossCallback):
    """(1 − alpha) · cross-entropy + alpha · T² · divergence of the next token, in nats. Both means are logged.

    alpha: share of the teacher, in [0, 1]; with 0 the loss needs no teacher. temperature: T > 0. Both are a number or a schedule.
    divergence: forward_kl | reverse_kl | jsd | skew_kl | skew_reverse_kl | total_variation. jsd_beta, skew: β and λ in (0, 1).
    vocabulary: same | common. With common, models of different V are compared on the tokens that both have.

    Raises UserError in `bind`: an option outside its range, no teacher, different tokenizers or V; in `forward`: a teacher whose
    answers do not allow the divergence or the temperature, or are of other tokens.
    """

    citation: ClassVar[str] = (
        "Hinton et al. 2015, arXiv:1503.02531; jsd: Agarwal et al. 2024, arXiv:2306.13649; skewed: Ko et al. 2024, "
        "arXiv:2402.03898; total_variation: Wen et al. 2023, arXiv:2307.15190; draws: Anshumann et al. 2025, arXiv:2503.16870"
    )
    unit = "targets"

    def __init__(
        self,
        *,
        weight: Schedule = 1.0,
        alpha: Schedule = 0.9,
        temperature: Schedule = 1.0,
        divergence: str = "forward_kl",
        jsd_beta: float = 0.5,
        skew: float = 0.1,
        vocabulary: str = "same",
    ) -> None:
        super().__init__(weight=weight)
        self.alpha = alpha
        self.temperature = temperature
        self.divergence = divergence
        self.jsd_beta = jsd_beta
        self.skew = skew
        self.vocabulary = vocabulary

    @property
    def needs_teacher(self) -> bool:  # type: ignore[override]
        return self.alpha != 0

    @property
    def fits(self) -> Fits:
        return Fits(("tokens",))

    def bind(self, student: ModelSpec, teacher: ModelSpec | None) -> None:
        self._check_options()
        answer = Need(answer=True)
        self.compared = student.head.outputs  # tokens
        if self.needs_teacher:
            self._compare(student, self.teacher_spec(teacher))
        self.requires = Requires(answer, answer if self.needs_teacher else Need())

    def forward(self, student: Outputs, teacher: Outputs | None, batch: Batch) -> LossOutput:
        """States of the student's P target tokens, the teacher's answer to them and the tokens themselves → sums over P."""
        own, targets, progress = student.tokens, batch["next"], batch.get("progress", 0.0)
        assert isinstance(own, FromStates)
        t, answer = at(self.temperature, progress), None
        if self.needs_teacher:
            assert teacher is not None and teacher.tokens is not None
            answer = teacher.tokens
            taken_at = None if isinstance(answer, FromStates) else answer.temperature
            self.check_answer(TokenAnswer(type(answer), taken_at), [progress])
            self._check_positions(own, answer)
        form = divergence(self.divergence, self.jsd_beta, self.skew)
        own_text = bool(batch.get(OWN_TEXT))  # which is learnt from the teacher alone
        terms = Terms(1.0 if own_text else at(self.alpha, progress), t, form, self.compared)
        total, *parts = token_terms(own, targets, answer, terms)
        count = total.new_full((), len(targets)).long()
        share = batch["scale"][self.unit] if "scale" in batch else 1.0  # as LossSet scales the sum
        means = [each / max(len(targets), 1) * share for each in parts]
        logs = dict(zip(("cross_entropy", "divergence"), means, strict=True))
        if OWN_TEXT in batch:
            logs[OWN_TEXT] = total.new_tensor(float(own_text))
        return LossOutput(total, count, logs)

    def check_answer(self, answer: TokenAnswer, progress: Sequence[float] = (0.0, 1.0)) -> None:
        """progress: where the loss's own temperature is compared."""
        if not self.needs_teacher:
            return
        if answer.kind is Draws and self.divergence != "forward_kl":
            raise UserError(
                f"{self.key('divergence')}={self.divergence} cannot be estimated from tokens drawn from the teacher; forward_kl "
                f"can. Set {self.key('divergence')}=forward_kl, or let the teacher answer with its best tokens or its states "
                "(teacher.stored_as=topk or states)."
            )
        for own in (at(self.temperature, each) for each in progress):
            if answer.temperature is not None and not isclose(answer.temperature, own, rel_tol=1e-6):
                raise UserError(
                    f"{self.key('temperature')} is {own:g} and the teacher's probabilities are those of T = "
                    f"{answer.temperature:g}, from which others do not follow. Set {self.key('temperature')}="
                    f"{answer.temperature:g} or teacher.temperature={own:g}, or let the teacher answer with its states "
                    "(teacher.stored_as=states), which give every temperature."
                )

    def _check_positions(self, own: FromStates, answer: TokenLogits) -> None:
        if len(answer) != len(own):
            raise UserError(
                f"losses.{self.name}: the student answers for {len(own)} target tokens and the teacher for {len(answer)}. Both "
                "must read the same tokens: check the tokenizers, and fill a stored teacher anew for this data."
            )
        if isinstance(answer, TopK | Draws) and answer.ids.device.type == "cpu" and answer.ids.numel():
            largest = int(answer.ids.max())  # elsewhere the device would be asked at every step
            if largest >= self.compared:
                raise UserError(
                    f"losses.{self.name}: the teacher's answers hold token {largest}, and {self.compared} tokens are compared. "
                    "Let the teacher answer with its states, or use a student with the teacher's vocabulary."
                )

    def _compare(self, student: ModelSpec, teacher: ModelSpec) -> None:
        check_same_vocabulary(
            self, student, teacher, f"learn from texts that the teacher wrote, with {self.key('alpha')}=0"
        )
        sizes = (student.head.outputs, teacher.head.outputs)
        if sizes[0] != sizes[1] and self.vocabulary != "common":
            raise UserError(
                f"losses.{self.name} compares token by token, but {student.name} has {sizes[0]} tokens and {teacher.name} "
                f"{sizes[1]}. If the first {min(sizes)} are the same and the others are padding, set "
                f"{self.key('vocabulary')}=common; else use a student with the teacher's tokenizer."
            )
        self.compared = min(sizes)

    def _check_options(self) -> None:
        self.check_choice("divergence", NAMES)
        self.check_choice("vocabulary", ("same", "common"))
        for option in ("jsd_beta", "skew"):
            value = vars(self)[option]
            if not isinstance(value, int | float) or not 0 < value < 1:
                raise UserError(f"{self.key(option)} must be in (0, 1); found {value!r}.")
        if not all(0 <= each <= 1 for each in ends(self.alpha, self.key("alpha"))):
            raise UserError(f"{self.key('alpha')} must be in [0, 1]; found {self.alpha}. Set distill.alpha.")
        if not all(isfinite(each) and each > 0 for each in ends(self.temperature, self.key("temperature"))):
            raise UserError(
                f"{self.key('temperature')} must be above 0; found {self.temperature}. Set distill.temperature."
            )
