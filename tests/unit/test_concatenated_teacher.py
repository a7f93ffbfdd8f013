"""teacher.combine=concatenated: the cosines of several teachers of vectors, averaged, from models, files and stores."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from contract.tiny_models import HEAD, VECTOR, Teachers, config, context, encoder, texts, tokenizer
from torch import Tensor

from mangakd.core.errors import UserError
from mangakd.core.requires import Need
from mangakd.core.spec import Head
from mangakd.data.rows import Rows
from mangakd.data.sequence_texts import SequenceTexts
from mangakd.models.load import vocabulary_digest
from mangakd.tasks.classification.task import Classification
from mangakd.teachers.base import TeacherProvider
from mangakd.teachers.cached import Cached
from mangakd.teachers.concatenated import ConcatenatedTeacher
from mangakd.teachers.ensemble import Ensemble
from mangakd.teachers.local import LocalTeacher
from mangakd.teachers.options import Member, TeacherContext
from mangakd.teachers.several import EnsembleOptions

CPU, WEIGHTS = torch.device("cpu"), [3, 1, 2]
COUNTS = {"train": 40, "validation": 20, "test": 9}
ALL = [text for seed, count in enumerate(COUNTS.values()) for text in texts(count, seed)]


def load(member: Member) -> Any:
    """bert answers with 16 dimensions, distilbert with 24."""
    made = encoder(config(member.path, layers=1, hidden=24 if member.path == "distilbert" else 16), VECTOR, member.seed)
    made.spec = replace(made.spec, vocabulary=vocabulary_digest(tokenizer()))
    return made


def of(text: str) -> np.ndarray:
    return np.random.default_rng(len(text) + 1000 * ord(text[-1])).normal(size=5).astype("f4")


@pytest.fixture
def setting(tmp_path: Path) -> TeacherContext:
    lines = [json.dumps({"text": text, "vector": of(text).tolist()}) for text in dict.fromkeys(ALL)]
    (tmp_path / "api.jsonl").write_text("\n".join(lines))
    parts = {name: SequenceTexts(Rows({"text": texts(count, seed)}), Classification().sequences)
             for seed, (name, count) in enumerate(COUNTS.items())}  # fmt: skip
    return replace(context(tmp_path, Teachers(HEAD)), head=VECTOR, load=load, texts=parts)


def options(kind: type[EnsembleOptions], folder: Path, **more: Any) -> EnsembleOptions:
    paths = ["bert", str(folder / "api.jsonl"), "distilbert"]
    return kind(**{"path": "bert", "paths": paths, "weights": WEIGHTS, "combine": "concatenated", **more})


def answers(provider: TeacherProvider, setting: TeacherContext) -> Tensor:
    return provider.prepare(CPU, Need(answer=True))(setting.splits["train"].collate(range(40))).answer


def cosines(vectors: np.ndarray) -> np.ndarray:
    unit = vectors.astype(np.float64) / np.linalg.norm(vectors.astype(np.float64), axis=1, keepdims=True)
    return unit @ unit.T


@pytest.mark.parametrize("kind", [Ensemble, Cached])
def test_cosines_are_the_weighted_mean_of_the_members_cosines(
    kind: type[EnsembleOptions], setting: TeacherContext, tmp_path: Path
) -> None:
    wanted, share = np.zeros((40, 40)), np.array(WEIGHTS) / 6
    batch = setting.splits["train"].collate(range(40))["teacher"]
    with torch.no_grad():
        wanted += share[0] * cosines(load(Member("bert", 0))(batch).answer.numpy())
        wanted += share[2] * cosines(load(Member("distilbert", 0))(batch).answer.numpy())
    wanted += share[1] * cosines(np.stack([of(text) for text in texts(40, 0)]))
    teacher = options(kind, tmp_path)
    assert [member.path for member in teacher.models] == ["bert", "distilbert"]
    provider = teacher.provider(setting)
    vectors = answers(provider, setting)
    assert provider.spec.head == Head("vector", 45) == teacher.head(VECTOR, [Head("vector", 16), Head("vector", 24)])
    assert provider.gives == Need(answer=True) and provider.members == 1 and not vectors.requires_grad
    torch.testing.assert_close(vectors.norm(dim=1), torch.ones(40))
    np.testing.assert_allclose(cosines(vectors.numpy()), wanted, atol=1e-6)
    assert wanted[np.triu_indices(40, 1)].std() > 0.05, "equal cosines prove nothing"


def test_one_store_serves_all_weights(setting: TeacherContext, tmp_path: Path) -> None:
    one, other = (options(Cached, tmp_path, weights=weights).provider(setting) for weights in (WEIGHTS, [1, 0, 0]))
    assert len(list((tmp_path / "stores").iterdir())) == 1 and one.fingerprint == other.fingerprint
    assert not torch.equal(one.weights, other.weights)  # type: ignore[attr-defined]
    live = options(Ensemble, tmp_path, weights=[1, 0, 0]).provider(setting)
    torch.testing.assert_close(answers(other, setting), answers(live, setting), rtol=1e-5, atol=1e-6)
    assert live.fingerprint == one.fingerprint
    second = options(Ensemble, tmp_path, paths=["bert", "bert", "distilbert"]).provider(setting)
    assert second.fingerprint != live.fingerprint


def test_what_does_not_fit_is_refused(setting: TeacherContext, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"combine=probabilities takes a mean of vectors, .*combine=concatenated"):
        options(Ensemble, tmp_path, combine="probabilities").head(VECTOR, [])
    with pytest.raises(UserError, match=r"combine=concatenated is for vectors, and the task's head is of kind score"):
        options(Ensemble, tmp_path, paths=["bert", "distilbert"]).head(Head("score", 1), [])
    with pytest.raises(UserError, match=r"teacher\.weights=\[1\.0, 2\.0\] must be 3 numbers"):
        options(Ensemble, tmp_path, weights=[1, 2]).provider(setting)
    rows = SequenceTexts(Rows({"text": ["w1 unheard of"]}), Classification().sequences)
    with pytest.raises(UserError, match=r"api\.jsonl has no vector for 1 of the 1 texts of test: 'w1 unheard of'"):
        options(Ensemble, tmp_path).check({"test": rows})
    made = [LocalTeacher(load(Member("bert", seed)), VECTOR) for seed in (0, 1)]
    made[1].spec = replace(made[1].spec, name="other", vocabulary="another")
    with pytest.raises(UserError, match=r"read with different tokenizers \(bert 0, other\)"):
        ConcatenatedTeacher(made)
