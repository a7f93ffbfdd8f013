"""What a student learns from stored answers, beside the live teacher: the gradient at its states, with V 8,192.

benchmarks/stored_kinds.py measures the same with a trained model.
"""

from dataclasses import replace

import pytest
import torch
from torch import Tensor

from mangakd.core.outputs import TARGETS, Batch
from mangakd.core.spec import Head
from mangakd.core.token_logits import FromStates, LmHead, TokenLogits, TopK
from mangakd.losses.chunked import Terms, token_terms
from mangakd.losses.token_divergence import forward_kl
from mangakd.store.manifest import Manifest
from mangakd.teachers.token_kinds import answer_of, fields_of

V, P, D = 8192, 40, 32
SPREAD = 5.0  # of the logits: the 64 best tokens have nine tenths of the mass, and the teacher an entropy of 2.7 nats
KINDS = {
    "topk, 32": ("topk", 32, 0.98),
    "topk, 64": ("topk", 64, 0.99),
    "draws": ("draws", 50, 0.95),
    "states": ("states", D, 0.99999),
}


def answers(seed: int = 0) -> tuple[FromStates, Batch]:
    """Of the teacher, to one sequence."""
    generator = torch.Generator().manual_seed(seed)
    head = LmHead(torch.randn(V, D, generator=generator) * SPREAD / D**0.5)
    targets = torch.ones(1, P + 1, dtype=torch.bool).index_fill_(1, torch.tensor([0]), False)
    batch = {"key": torch.tensor([-5]), "teacher": {TARGETS: targets}, "next": torch.arange(P)}
    return FromStates(torch.randn(P, D, generator=generator), head), batch


def stored(live: FromStates, batch: Batch, kind: str, size: int) -> TokenLogits:
    manifest = Manifest(
        "t", "v", Head("tokens", V), kind=kind, size=size, dtype="float32" if kind == "draws" else "float16"
    )
    codec = manifest.codec
    arrays = codec.decode(codec.encode(fields_of(live, batch, manifest)))
    return answer_of(arrays, manifest, live.head, torch.device("cpu"))


def gradient(student: FromStates, batch: Batch, answer: TokenLogits) -> Tensor:
    """Of forward KL (alpha 1) at the student's states."""
    states = student.states.clone().requires_grad_()
    total = token_terms(FromStates(states, student.head), batch["next"], answer, Terms(1.0, 1.0, forward_kl, V))[0]
    return torch.autograd.grad(total, states)[0].flatten().double()


def renormalised(answer: TopK) -> TopK:
    """As top-k is often stored: the mass of all other tokens is spread over the k best. mangakd does not offer it."""
    whole = answer.log_probs.logsumexp(-1, keepdim=True)
    return replace(answer, log_probs=answer.log_probs - whole, tail=torch.full_like(answer.tail, -torch.inf))


@pytest.mark.parametrize("name", KINDS)
def test_the_gradient_points_where_the_live_teachers_does(name: str) -> None:
    kind, size, least = KINDS[name]
    live, batch = answers()
    student = FromStates(live.states + 0.5 * answers(1)[0].states, live.head)
    near, exact = (gradient(student, batch, each) for each in (stored(live, batch, kind, size), live))
    assert torch.cosine_similarity(near, exact, dim=0) > least


@pytest.mark.parametrize("size", [32, 64])
def test_a_student_that_equals_its_teacher_learns_nothing_from_topk(size: int) -> None:
    """Renormalised top-k leads it away from the teacher: to a tail without mass."""
    live, batch = answers()
    far = gradient(answers(1)[0], batch, live).norm()
    topk = stored(live, batch, "topk", size)
    assert isinstance(topk, TopK)
    assert gradient(live, batch, topk).norm() < 1e-3 * far
    assert gradient(live, batch, renormalised(topk)).norm() > 0.02 * far
