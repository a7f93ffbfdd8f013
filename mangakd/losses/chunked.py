"""Cross-entropy and a divergence of a language model's next tokens, from its final hidden states, without the logits (P, V).

Formula, for target tokens y, student logits z, T and alpha of the loss (tokens.py):

    cross_entropy = Σ_p −log softmax(z_p)[y_p]        divergence = Σ_p T² · D(teacher_p‖softmax(z_p / T))
    total         = (1 − alpha) · cross_entropy + alpha · divergence

The positions are taken in chunks. The logits of a chunk are computed once, for both terms. Their gradient has a closed form, and
its products with states and head are taken at once, so that the chunk's memory is free for the next chunk. The gradients kept for
the backward pass have the sizes of states, weight and bias. The backward pass multiplies them by the upstream gradient.

Both terms are one function with alpha inside, because the gradient is formed before the backward pass brings the terms' weights.
Two functions would keep two gradients of the head, and need five matrix products with it instead of three.

Shapes: states (P, D); head weight (V, D); targets (P) int64. P target positions, V vocabulary, D hidden size, C positions of a
chunk.

Source: gradients in the forward pass: Hsu et al. 2024 (Liger Kernel, arXiv:2410.10989).
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from mangakd.core.errors import UserError
from mangakd.core.token_logits import FromStates, LmHead, TokenLogits, add_product, product
from mangakd.losses.token_divergence import Divergence
from mangakd.losses.token_views import Seen, View, Whole, view

BUFFER, LEAST, MOST = 2**27, 64, 256  # bytes of a chunk's logits in fp32; positions of a chunk
CACHE = 2**20  # bytes of a CPU core's cache


@dataclass(frozen=True)
class Terms:
    """alpha: share of the divergence in the total. temperature: T > 0. divergence: not read without a teacher.

    vocabulary: the number of tokens, from the first one on, that the divergence compares.
    """

    alpha: float
    temperature: float
    divergence: Divergence
    vocabulary: int


def chunk_size(vocabulary: int) -> int:
    """Positions of a chunk: as many as 128 MB of logits hold, between 64 and 256. Products of fewer rows are slow."""
    return min(max(BUFFER // (4 * vocabulary), LEAST), MOST)


def token_terms(
    student: FromStates, targets: Tensor, teacher: TokenLogits | None, terms: Terms, chunk: int | None = None
) -> tuple[Tensor, Tensor, Tensor]:
    """(total, cross_entropy, divergence): sums over the P positions, in at least fp32. Only the total has a graph.

    teacher: of the same P positions, or None: the divergence is 0 then. It gets no gradient. chunk: positions of a chunk.
    """
    head, size = student.head, chunk or chunk_size(student.head.vocabulary)
    gradients = torch.is_grad_enabled()
    return _Chunked.apply(  # type: ignore[no-any-return, no-untyped-call]
        student.states, head.weight, head.bias, head, targets, teacher, terms, size, gradients
    )


class _Chunked(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, states: Tensor, weight: Tensor, bias: Tensor | None, head: LmHead, targets: Tensor,
        teacher: TokenLogits | None, terms: Terms, size: int, gradients: bool,
    ) -> tuple[Tensor, Tensor, Tensor]:  # fmt: skip
        head = head.ready()
        if isinstance(teacher, FromStates):
            teacher = FromStates(teacher.states, teacher.head.cut(terms.vocabulary).ready())
        needs = ctx.needs_input_grad[:3] if gradients else (False,) * 3
        pull = _Pull.zeros((states, weight, bias), needs)
        sums = states.new_zeros(2, dtype=torch.promote_types(states.dtype, torch.float32))
        buffers = [_buffer(each, min(size, len(states))) for each in (FromStates(states, head), teacher)]
        for rows in _slices(len(states), size):
            inputs, answer = states[rows].to(head.dtype), None if teacher is None else teacher[rows]
            values, gradient = _of_chunk(head, inputs, targets[rows], answer, terms, any(needs), buffers)
            sums += values
            pull.add(rows, inputs, gradient, head.weight)
        ctx.save_for_backward(pull.states, pull.weight, pull.bias)
        ctx.dtypes = [None if each is None else each.dtype for each in (states, weight, bias)]
        cross_entropy, divergence = sums.unbind()
        ctx.mark_non_differentiable(cross_entropy, divergence)
        return (1 - terms.alpha) * cross_entropy + terms.alpha * divergence, cross_entropy, divergence

    @staticmethod
    def backward(ctx: Any, upstream: Tensor, *_: Tensor) -> tuple[Tensor | None, ...]:  # type: ignore[override]
        if torch.is_grad_enabled():  # torch's once_differentiable would drop the second derivative without a word
            raise UserError(
                "the loss of next tokens forms its gradient in the forward pass and has no second derivative: leave out "
                "create_graph=True."
            )
        # Not in place: another backward pass may follow, as in losses/gradient_norms.py.
        stored = zip(ctx.saved_tensors, ctx.dtypes, strict=True)
        return *(None if each is None else (each * upstream).to(dtype) for each, dtype in stored), *[None] * 6


@dataclass(frozen=True)
class _Pull:
    """The gradients of the total, added up chunk by chunk: (P, D), (V, D) and (V), None where none is wanted."""

    states: Tensor | None
    weight: Tensor | None
    bias: Tensor | None

    @classmethod
    def zeros(cls, inputs: Sequence[Tensor | None], needs: Sequence[bool]) -> "_Pull":
        """In at least fp32, where many small parts are added."""
        return cls(*(
            torch.zeros_like(each, dtype=torch.promote_types(each.dtype, torch.float32)) if each is not None and need else None
            for each, need in zip(inputs, needs, strict=True)
        ))  # fmt: skip

    def add(self, rows: slice, inputs: Tensor, gradient: Tensor, weight: Tensor) -> None:
        """gradient: (C, V) at weight · h + bias. inputs: the states h (C, D), which have the dtype of products, as the weight."""
        if self.bias is not None:
            self.bias.add_(gradient.sum(0))
        gradient = gradient.to(inputs.dtype)
        if self.states is not None:
            self.states[rows] = product(gradient, weight)
        if self.weight is not None:
            add_product(self.weight, gradient.T, inputs)


def _buffer(answer: TokenLogits | None, rows: int) -> Tensor:
    """The memory of a chunk's logits, for all chunks: malloc would keep freed buffers of some chunks beside the gradients."""
    if not isinstance(answer, FromStates):
        return torch.empty(0)
    dtype = torch.promote_types(answer.head.weight.dtype, torch.float32)
    return answer.states.new_empty(rows, answer.head.vocabulary, dtype=dtype)


def _of_chunk(
    head: LmHead, inputs: Tensor, targets: Tensor, teacher: TokenLogits | None, terms: Terms, gradients: bool,
    buffers: Sequence[Tensor],
) -> tuple[Tensor, Tensor]:  # fmt: skip
    """The sums (2), and the gradient at weight · h + bias (C, V) in the memory of the logits; the logits if it is not wanted."""
    own, other = (buffer[: len(inputs)] for buffer in buffers)
    logits = head.logits(inputs, own)
    compared = teacher.head.logits(teacher.states, other) if isinstance(teacher, FromStates) else teacher
    sums = logits.new_zeros(2)
    for rows in _slices(len(logits), _block(logits)):
        answer = None if compared is None else compared[rows]
        values, gradient = _evaluate(logits[rows], targets[rows], answer, terms, gradients)
        sums += values
        if gradient is not None:
            logits[rows] = _through(head, logits[rows], gradient)
    return sums, logits


def _slices(length: int, size: int) -> Iterator[slice]:
    return (slice(start, start + size) for start in range(0, length, size))


def _block(logits: Tensor) -> int:
    """Rows that are evaluated at once: on a CPU as many as stay in its cache."""
    cache = CACHE * torch.get_num_threads()
    return max(cache // (4 * logits.shape[1]), 1) if logits.device.type == "cpu" else max(len(logits), 1)


def _evaluate(
    logits: Tensor, targets: Tensor, teacher: Seen | None, terms: Terms, gradient: bool
) -> tuple[Tensor, Tensor | None]:
    """The sums of cross-entropy and divergence (2), and the gradient of the total at the logits (C, V) if it is wanted."""
    t, hard = terms.temperature, 1 - terms.alpha
    if teacher is None:
        alone = Whole(logits, targets)
        sums = torch.stack([-alone.own.sum(), alone.own.new_zeros(())])
        return sums, _less_target(alone.gradient(hard, None), targets, hard) if gradient else None
    joint = t == 1.0 and logits.shape[1] == terms.vocabulary  # one softmax serves both terms
    own: View = view(logits, targets, teacher, t) if joint else Whole(logits, targets)
    other = own if joint else view(logits[:, : terms.vocabulary] / t, None, teacher, t)
    each, slope = other.compare(terms.divergence)
    sums = torch.stack([-own.own.sum(), t**2 * each.sum()])
    if not gradient:
        return sums, None
    slope = slope.mul_(terms.alpha * t)  # T² of the loss, and 1 / T of z / T
    soft = -slope.sum(-1, keepdim=True)
    if joint:
        whole = own.gradient(hard + soft, slope)
    else:
        whole = own.gradient(hard, None)
        whole[:, : terms.vocabulary] += other.gradient(soft, slope)
    return sums, _less_target(whole, targets, hard)


def _less_target(gradient: Tensor, targets: Tensor, hard: float) -> Tensor:
    """The rest of cross-entropy's gradient hard · (q − 1[target])."""
    index = targets[:, None]
    return gradient.scatter_add_(1, index, gradient.new_full(index.shape, -hard))


def _through(head: LmHead, logits: Tensor, gradient: Tensor) -> Tensor:
    """The gradient at weight · h + bias, of that at the logits."""
    gradient = gradient if head.scale == 1.0 else gradient.mul_(head.scale)
    return gradient if head.soft_cap is None else gradient.mul_(1 - (logits / head.soft_cap).square_())
