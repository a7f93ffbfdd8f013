"""Ranking and vector losses beside those of sentence-transformers, on the same numbers. Each difference is named here.

The library may be in an environment of its own: MANGAKD_SENTENCE_TRANSFORMERS_PYTHON names its Python.
"""

import importlib.util
import json
import math
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from mangakd.core.outputs import Outputs
from mangakd.core.spec import Head, ModelSpec
from mangakd.losses.base import LossCallback
from mangakd.losses.binary import BinaryLoss
from mangakd.losses.contrastive import ContrastiveLoss
from mangakd.losses.list_net import ListNetLoss
from mangakd.losses.margin_mse import MarginMSELoss
from mangakd.losses.pair_score import PairScoreLoss
from mangakd.losses.rank_net import RankNetLoss
from mangakd.losses.score_mse import ScoreMSELoss
from mangakd.losses.vector import VectorLoss

PYTHON = os.environ.get("MANGAKD_SENTENCE_TRANSFORMERS_PYTHON")
if PYTHON is None and importlib.util.find_spec("sentence_transformers"):
    PYTHON = sys.executable
if PYTHON is None:
    pytest.skip("needs sentence-transformers: make test-sentence-transformers", allow_module_level=True)

B, G, D = 3, 4, 6
RANDOM = torch.Generator().manual_seed(0)


def random(*shape: int) -> list[Any]:
    return torch.randn(*shape, generator=RANDOM).tolist()


# One relevant document a query, which comes first: what the peer's margin-MSE reads.
EVEN = {"scores": random(B, G), "teacher": random(B, G), "grades": [[2.0, 0.0, 0.0, 0.0]] * B}
# A query of one document, and one whose documents all have one grade.
ODD = {
    "scores": [*random(2, G), random(1), random(3)],
    "teacher": [*random(2, G), random(1), random(3)],
    "grades": [[2.0, 1.0, 0.0, 0.0], [0.0, 1.0, 1.0, 0.0], [1.0], [0.0, 0.0, 0.0]],
}
VECTORS = {"student": random(3 * B, D), "targets": random(3 * B, D), "pair_scores": [0.1, 0.9, 0.4]}
MODEL = ModelSpec("model", layers=1, hidden=4, heads=1, head=Head("score", 1))
ENCODER = ModelSpec("model", layers=1, hidden=4, heads=1, head=Head("vector", D))


@pytest.fixture(scope="module")
def theirs() -> list[dict[str, tuple[float, list[Any]]]]:
    side = Path(__file__).with_name("sentence_transformers_losses_side.py")
    done = subprocess.run(
        [str(PYTHON), str(side)], input=json.dumps([EVEN, ODD, VECTORS]), capture_output=True, text=True, timeout=600,
        check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-3000:]
    return json.loads(done.stdout.splitlines()[-1])


def mean(
    leaf: Tensor, loss: LossCallback, spec: ModelSpec, sides: list[Outputs], batch: dict[str, Tensor]
) -> tuple[float, Tensor]:
    """The loss and its gradient in the student's numbers."""
    loss.bind(spec, spec)
    output = loss(*sides, batch)
    value = output.sum / output.count
    return value.item(), torch.autograd.grad(value, leaf)[0]


def ranked(loss: LossCallback, tables: dict[str, Any]) -> tuple[float, Tensor]:
    student, teacher = (
        torch.tensor([score for one in tables[side] for score in one])[:, None] for side in ("scores", "teacher")
    )
    sizes = [len(one) for one in tables["grades"]]
    grades = torch.tensor([[*one, *[math.nan] * (max(sizes) - len(one))] for one in tables["grades"]])
    batch = {"first": torch.tensor([0, *np.cumsum(sizes)]), "grades": grades}
    sides = [Outputs(side, torch.ones(len(side), 1)) for side in (student.requires_grad_(), teacher)]
    value, gradient = mean(student, loss, MODEL, sides, batch)
    return value, gradient[:, 0]


def embedded(loss: LossCallback, **more: Tensor) -> tuple[float, Tensor]:
    student, teacher = (torch.tensor(VECTORS[side]) for side in ("student", "targets"))
    batch = {"first": torch.arange(0, 3 * B + 1, 3), "key": torch.arange(3 * B), "score": torch.tensor(VECTORS["pair_scores"]),
             "labels": torch.ones(B, dtype=torch.long), **more}  # fmt: skip
    sides = [Outputs.of("vector", side, torch.ones(len(side), 3)) for side in (student.requires_grad_(), teacher)]
    return mean(student, loss, ENCODER, sides, batch)


def same(ours: tuple[float, Tensor], theirs: tuple[float, list[Any]], factor: float = 1.0) -> None:
    """Value and gradient are `factor` times the peer's."""
    assert ours[0] == pytest.approx(factor * theirs[0], rel=1e-5)
    same_gradient(ours[1], theirs, factor)


def same_gradient(ours: Tensor, theirs: tuple[float, list[Any]], factor: float = 1.0) -> None:
    assert ours.abs().max() > 1e-3
    torch.testing.assert_close(ours, factor * torch.tensor(theirs[1]), rtol=1e-4, atol=1e-6)


def test_scores_alone(theirs: list[Any]) -> None:
    same(ranked(ScoreMSELoss(), EVEN), theirs[0]["score_mse"])
    same(ranked(BinaryLoss(), EVEN), theirs[0]["binary"])


def test_margin_mse_of_one_relevant_document(theirs: list[Any]) -> None:
    same(ranked(MarginMSELoss(pairs="graded"), EVEN), theirs[0]["margin_mse"])


def test_list_net_is_without_the_entropy_of_the_grades(theirs: list[Any]) -> None:
    value, gradient = ranked(ListNetLoss(), EVEN)
    shares = torch.tensor(EVEN["grades"][0]).softmax(0)
    assert value == pytest.approx(theirs[0]["list_net"][0] + (shares * shares.log()).sum().item(), rel=1e-5)
    same_gradient(gradient, theirs[0]["list_net"])


def test_list_net_leaves_out_queries_that_say_nothing_of_an_order(theirs: list[Any]) -> None:
    """The peer's mean counts the query of one document, and pulls documents of one grade together."""
    _, gradient = ranked(ListNetLoss(), ODD)
    peer = torch.tensor(theirs[1]["list_net"][1])
    same_gradient(gradient[:8], ["", peer[:8].tolist()], 4 / 2)
    assert not gradient[8:].any() and not peer[8] and peer[9:].any()


def test_rank_net_has_the_natural_logarithm(theirs: list[Any]) -> None:
    same(ranked(RankNetLoss(), EVEN), theirs[0]["rank_net"], math.log(2))


def test_rank_net_weighs_queries_alike(theirs: list[Any]) -> None:
    """The peer's mean is over all pairs: 5 of the first query and 4 of the second."""
    _, gradient = ranked(RankNetLoss(), ODD)
    peer = torch.tensor(theirs[1]["rank_net"][1]) * math.log(2)
    for part, pairs in ((slice(0, 4), 5), (slice(4, 8), 4)):
        same_gradient(gradient[part], ["", peer[part].tolist()], (5 + 4) / (2 * pairs))
    assert not gradient[8:].any() and not peer[8:].any()


def test_vectors(theirs: list[Any]) -> None:
    """The peer's squared error is a mean over dimensions, ours a distance."""
    same(embedded(VectorLoss(compare="mse")), theirs[2]["vector mse"], D)
    same(embedded(VectorLoss(compare="cosine")), theirs[2]["vector cosine"])
    same(embedded(PairScoreLoss()), theirs[2]["pair_score"])


def test_contrastive_with_its_scale_of_20(theirs: list[Any]) -> None:
    same(embedded(ContrastiveLoss(temperature=0.05)), theirs[2]["contrastive"])
