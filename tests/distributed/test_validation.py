"""Validation scores over ranks are those of one process: a row that two ranks hold counts once, and sums lose nothing."""

import os

import numpy as np
import pytest
import tiny
import torch
import torch.distributed as dist
import torch.multiprocessing as processes

from mangakd.core.outputs import Outputs
from mangakd.core.spec import Head
from mangakd.data.encoded import EncodedSplit
from mangakd.data.sampler import Share
from mangakd.tasks.classification.task import Classification, Problem
from mangakd.training.validation import Validation

PROBLEMS: tuple[Problem, ...] = ("single_label", "multi_label")
ROWS, CLASSES, BATCH, WORLD = 23, 4, 3, 2  # one row more on the first rank: the second takes row 0 again


def world(problem: Problem) -> tuple[EncodedSplit, np.ndarray, np.ndarray]:
    """Split, student and teacher logits. Class 3 occurs neither in the answers nor in the targets."""
    rng = np.random.default_rng(0)
    student, teacher = rng.normal(size=(2, ROWS, CLASSES)) - 50 * (np.arange(CLASSES) == 3)
    split = tiny.split(ROWS, 1)
    if problem == "multi_label":
        split.columns["labels"] = (rng.random((ROWS, CLASSES)) < [0.5, 0.3, 0.1, 0]).astype(np.float32)
    return split, student.astype(np.float32), teacher.astype(np.float32)


def head(problem: Problem) -> Head:
    return Head("labels", CLASSES, tuple("abcd"), several=problem == "multi_label")


def passed(validation: Validation, logits: np.ndarray) -> dict[str, float]:
    """The scores of one pass whose model answers these logits."""
    for number, batch in enumerate(validation.batches):
        rows = validation.batches.rows[number * BATCH : (number + 1) * BATCH]
        outputs = Outputs(torch.from_numpy(logits[rows]), batch["student"]["attention_mask"])
        validation.add(lambda _, outputs=outputs: outputs, batch)
    return validation.scores()


def on_rank(rank: int, folder: str) -> None:
    dist.init_process_group("gloo", init_method=f"file://{folder}/meet", rank=rank, world_size=WORLD)
    results = {}
    for problem in PROBLEMS:
        split, student, teacher = world(problem)
        task = Classification(problem=problem)
        validation = Validation(
            task, head(problem), split, BATCH, Share(rank, WORLD), {"logits": torch.from_numpy(teacher)}
        )
        results[problem] = [passed(validation, student), passed(validation, student)]
        if rank == 0:  # a fit on one device asks no other rank, which may be elsewhere
            results[problem].append(passed(Validation(task, head(problem), split, BATCH, Share()), student))
    torch.save(results, os.path.join(folder, f"{rank}.pt"))
    dist.destroy_process_group()


@pytest.fixture(scope="module")
def results(
    forked_ranks: None, tmp_path_factory: pytest.TempPathFactory
) -> list[dict[Problem, list[dict[str, float]]]]:
    """Of each rank."""
    folder = tmp_path_factory.mktemp("ranks")
    processes.start_processes(on_rank, (str(folder),), nprocs=WORLD, join=True)  # type: ignore[attr-defined]
    return [torch.load(folder / f"{rank}.pt") for rank in range(WORLD)]


@pytest.mark.parametrize("problem", PROBLEMS)
def test_ranks_say_what_one_process_says(
    problem: Problem, results: list[dict[Problem, list[dict[str, float]]]]
) -> None:
    (first, again, alone), (other, _) = (rank[problem] for rank in results)
    split, student, teacher = world(problem)
    task = Classification(problem=problem)
    said, reference = {"logits": student}, {"logits": teacher}
    values = task.judge.values(head(problem), said, split.columns, reference)
    values["retention"] = values["accuracy"] / task.judge.values(head(problem), reference, split.columns)["accuracy"]
    assert first == again == other, "every rank, in every pass"
    assert first == pytest.approx(values, abs=1e-12)
    exact = ("accuracy", "agreement", "macro_f1", "retention")
    assert [first[name] for name in exact] == [values[name] for name in exact]
    assert alone == pytest.approx(task.judge.values(head(problem), said, split.columns), abs=1e-12)
    one = passed(Validation(task, head(problem), split, BATCH, Share(), {"logits": torch.from_numpy(teacher)}), student)
    assert one == pytest.approx(first, abs=1e-12) and [one[name] for name in exact] == [first[name] for name in exact]
