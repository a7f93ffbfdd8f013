"""Plans of rerankers and embedding models: queries read apart, mining, the search index."""

import shutil
from collections.abc import Callable
from dataclasses import replace
from math import ceil
from pathlib import Path

import pytest
from omegaconf import DictConfig
from ranking_rows import rows, written

from mangakd.cli import plan as plans
from mangakd.cli.given import run_of
from mangakd.models.pooling import Dense, Pooling, VectorHead, save_head
from mangakd.planning.plan import Estimate, estimate

Compose = Callable[..., DictConfig]


@pytest.fixture
def search(compose: Compose, tiny_fresh: Path, tmp_path: Path) -> Callable[..., tuple[Estimate, list[str]]]:
    """search(*overrides) → the estimate of a tiny run of search on 12 rows, and the lines that plan=true prints."""
    own = ["hardware=h100", "student.layers=[2]", f"teacher.path={tiny_fresh}", f"paths.cache={tmp_path / 'cache'}"]

    def planned(*overrides: str) -> tuple[Estimate, list[str]]:
        config = compose(*own, *overrides)
        run = run_of(config, tmp_path / "run", "h100")
        return plans.estimated(config, run), plans.plan_of(config, run).splitlines()

    return planned


def test_a_late_student_reads_queries_apart(search: Callable[..., tuple[Estimate, list[str]]], tmp_path: Path) -> None:
    given = ["task=rerank", f"data.path={written(tmp_path / 'train.jsonl', rows(40, 0))}", "data.train_limit=12"]
    given += ["data.val_limit=4", "data.test_limit=4", "losses=[listwise_kl]"]
    cross, lines = search(*given)
    assert cross.job.student_queries == cross.job.teacher_queries == 0 and "index" not in "\n".join(lines)
    late, lines = search(*given, "student.interaction={dims: 8, query_length: 9}")
    job = late.job
    assert (
        job.student_queries == pytest.approx(12 / job.examples) and job.teacher_queries == 0 and job.query_length == 9
    )
    assert late.student.parameters == cross.student.parameters - 33 + 8 * 32, (
        "a linear layer in place of the classifier"
    )
    # documents alone; the teacher's pairs stand in batches of like length of the student's documents
    assert job.length < cross.job.length <= job.teacher_length <= cross.job.longest
    assert job.tokens == job.batch * job.length + ceil(job.batch * 9 * job.student_queries)
    alone = estimate(late.student, late.teacher, late.machine, replace(job, student_queries=0.0))
    samples = job.batch * job.accumulation
    queries = 3 * late.student.forward_flops(samples * job.student_queries, 9)
    assert late.flops["student"] == pytest.approx(alone.flops["student"] + queries)
    assert late.flops["teacher"] == pytest.approx(late.teacher.forward_flops(samples, job.teacher_length))
    tokens = 5 + 2  # "the refund number 3", as MiniLM's tokenizer reads it, between special tokens
    assert lines[-2].startswith(f"a search index of 1,000,000 documents of {tokens} tokens, a vector each")
    assert lines[-1].split()[:4] == ["8", "dimensions", "fp32", f"{tokens * 8 * 4 / 1000:.2f}"]
    both = search(*given, "student.interaction={dims: 8}", "teacher.interaction={dims: 8}")[0]
    assert both.job.teacher_queries == both.job.student_queries > 0
    alone = estimate(both.student, both.teacher, both.machine, replace(both.job, teacher_queries=0.0))
    assert both.flops["teacher"] > alone.flops["teacher"]


def test_mined_negatives_and_a_dense_layer_are_planned(
    search: Callable[..., tuple[Estimate, list[str]]], tiny_fresh: Path, tmp_path: Path
) -> None:
    pairs = [{"anchor": f"question {i}", "positive": f"the answer {i}"} for i in range(12)]
    given = [
        "task=embedding",
        f"data.path={written(tmp_path / 'train.jsonl', [*pairs, {'text': 'alone'}])}",
        "data=files",
    ]
    given += [f"data.{key}={written(tmp_path / f'{key}.jsonl', pairs[:4])}" for key in ("val_path", "test_path")]
    given += ["task.monitor=ndcg@10"]
    plain, lines = search(*given)
    assert (plain.job.examples, plain.job.mined, plain.mining) == (25, 0, (0, 0))
    assert lines[-1].split()[:4] == ["32", "dimensions", "fp32", "0.13"]
    mined, lines = search(*given, "task.hard_negatives.count=2")
    assert (mined.job.examples, mined.job.mined) == (25 + 2 * 12, 24)
    assert mined.total[0] == pytest.approx(mined.mining[0] + 5 * mined.epoch[0]) and mined.mining[0] > 0
    assert any("mining by the teacher" in line for line in lines)
    dense = tmp_path / "dense"
    shutil.copytree(tiny_fresh, dense)
    save_head(VectorHead(Pooling(dense=(Dense(32, 5),))), 32, dense)
    wide, lines = search(*given, f"student.path={dense}")
    encoder = search(*given, f"student.path={tiny_fresh}")[0].student
    assert (wide.student.outputs, wide.student.parameters) == (5, encoder.parameters + 33 * 5)
    assert lines[-1].split()[:4] == ["5", "dimensions", "fp32", "0.02"]
