"""An encoder–decoder trains and is scored alike on one process and on two, and a fit that is killed ends with the same bits."""

import multiprocessing
import os
import signal
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import tiny
import torch
from lightning.pytorch.loggers import CSVLogger
from rewrite_rows import rewrite_tokenizer, rows
from test_response_ranks import DDP, FSDP, ONE, no_user_error, scores_of, texts
from tiny_seq2seq import encoder

from mangakd.core.outputs import Batch, Outputs
from mangakd.data.seq2seq import SourceOptions
from mangakd.losses.base import LossOutput
from mangakd.losses.hidden import HiddenLoss
from mangakd.losses.tokens import TokensLoss
from mangakd.models import seq2seq
from mangakd.runs.texts import Tokeniser
from mangakd.tasks.response.task import Response
from mangakd.tasks.rewrite.encode import encoded
from mangakd.tasks.rewrite.task import Rewrite
from mangakd.teachers.local import LocalTeacher
from mangakd.training import launch
from mangakd.training.callbacks.save_last import SaveEvery
from mangakd.training.fit import fit
from mangakd.training.hardware import Hardware
from mangakd.training.optim import Optim
from mangakd.training.validation_texts import ValidationTexts

pytestmark = pytest.mark.usefixtures("forked_ranks")
Weights = dict[str, torch.Tensor]


def train(
    folder: Path, hardware: Hardware, kind: str, tokens: TokensLoss, dropout: float = 0.0, **changes: Any
) -> None:
    """A fit whose losses read the tokens and hidden states of both stacks. Sources and targets differ in length."""
    torch.set_num_threads(1)
    drops = {"dropout_rate": dropout} if "t5" in kind else {"dropout": dropout}
    teacher, student = encoder(kind, 1), encoder(kind, 2, **drops)
    losses = tiny.bound(student, teacher, tokens=tokens, hidden=HiddenLoss(projection=True))
    plan = replace(
        tiny.plan(folder, hardware=hardware, epochs=2),
        task=Response(),
        train=texts(30, 1),
        validation=texts(11, 2),
        loggers=[CSVLogger(folder, name="", version="")],
        **changes,
    )
    fit(student.train(), losses, LocalTeacher(teacher, teacher.spec.head), plan)
    assert seq2seq.is_tied(student.model) == ("untied" not in kind)


def part(folder: Path, hardware: Hardware, kind: str) -> None:
    train(folder, hardware, kind, TokensLoss(alpha=0.5))


def weights(folder: Path) -> Weights:
    saved: Weights = torch.load(folder / "checkpoints" / "last.ckpt", weights_only=False)["state_dict"]
    return saved


def ends(folder: Path, hardware: Hardware, kind: str) -> tuple[Weights, dict[str, float]]:
    folder.mkdir(exist_ok=True)
    if hardware.world == 1:
        part(folder, hardware, kind)
    else:
        launch.start(part, (folder, hardware, kind), hardware, folder, no_user_error)
    return weights(folder), scores_of(folder)


@pytest.mark.parametrize(
    ("hardware", "kind"),
    [(DDP, "t5 untied"), (DDP, "bart"), (FSDP, "t5 untied")],
    ids=["ddp t5", "ddp bart", "fsdp t5"],
)
def test_two_processes_end_as_one(hardware: Hardware, kind: str, tmp_path: Path) -> None:
    whole, scores = ends(tmp_path / "one", ONE, kind)
    trained, others = ends(tmp_path / "two", hardware, kind)
    assert {"val/perplexity", "val/kl", "val/agreement", "val/ece"} <= scores.keys()
    assert others == pytest.approx(scores, rel=1e-4)
    for name, value in whole.items():
        if name.endswith("k_proj.bias"):
            continue  # its gradient is 0 but for rounding, which AdamW divides by its own size
        torch.testing.assert_close(trained[name], value, rtol=0, atol=2e-5, msg=name)
    tables = [trained[f"student.model.{name}.weight"] for name in ("shared", "lm_head")] if kind != "bart" else []
    assert not tables or not torch.equal(*tables)


class Killed(TokensLoss):
    """Kills its process at a step, as the kernel does when memory runs out."""

    def __init__(self, step: int, **options: Any) -> None:
        super().__init__(**options)
        self._left = step

    def forward(self, student: Outputs, teacher: Outputs | None, batch: Batch) -> LossOutput:
        self._left -= 1
        if self._left == 0:
            os.kill(os.getpid(), signal.SIGKILL)
        return super().forward(student, teacher, batch)


@pytest.mark.parametrize("kind", ["t5 untied", "bart untied"])
def test_a_killed_fit_ends_with_the_same_bits(kind: str, tmp_path: Path) -> None:
    """With dropout, so that the random state counts, too."""
    for folder in ("whole", "cut"):
        (tmp_path / folder).mkdir()
    train(tmp_path / "whole", ONE, kind, TokensLoss(alpha=0.5), 0.1, save_every=SaveEvery(1))
    killed = multiprocessing.get_context("fork").Process(
        target=train,
        args=(tmp_path / "cut", ONE, kind, Killed(6, alpha=0.5), 0.1),
        kwargs={"save_every": SaveEvery(1)},
    )
    killed.start()
    killed.join(120)
    assert killed.exitcode == -signal.SIGKILL
    last = tmp_path / "cut" / "checkpoints" / "last.ckpt"
    assert torch.load(last, weights_only=False)["global_step"] == 5
    train(tmp_path / "cut", ONE, kind, TokensLoss(alpha=0.5), 0.1, save_every=SaveEvery(1), resume=last)
    whole, resumed = weights(tmp_path / "whole"), weights(tmp_path / "cut")
    assert whole.keys() == resumed.keys() and all(torch.equal(resumed[name], each) for name, each in whole.items())


def write(folder: Path, hardware: Hardware) -> None:
    """A fit whose student writes texts for the validation rows after each epoch. Some rows have two targets."""
    torch.set_num_threads(1)
    tokenizer, task = rewrite_tokenizer(), Rewrite(monitor="token_f1", generate_every=1, max_target_length=24)
    tokeniser = Tokeniser(tokenizer, tokenizer, 64, folder / "tokens")
    given = {"train": rows(40), "validation": rows(9)}
    splits = {name: encoded(each, tokeniser, SourceOptions()) for name, each in given.items()}
    student = encoder("t5", 2, vocab_size=len(tokenizer), dropout_rate=0.0)
    split = splits["validation"]
    samples = task.samples(split.rows_of(given["validation"]), split, tokenizer, 64)
    assert samples is not None
    plan = replace(
        tiny.plan(folder, hardware=hardware, epochs=4, optim=Optim(lr=2e-2)),
        task=task,
        texts=ValidationTexts(samples, split, task.judge, task.generate_every),
        loggers=[CSVLogger(folder, name="", version="")],
        **splits,
    )
    fit(student.train(), tiny.bound(student, None, tokens=TokensLoss(alpha=0.0)), None, plan)


def test_two_processes_write_what_one_writes(tmp_path: Path) -> None:
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
    write(tmp_path / "one", ONE)
    launch.start(write, (tmp_path / "two", DDP), DDP, tmp_path / "two", no_user_error)
    whole, scores = scores_of(tmp_path / "one"), scores_of(tmp_path / "two")
    assert scores == pytest.approx(whole, rel=1e-4)
    assert whole["val/token_f1"] > 0 and {"val/exact_match", "val/recall@10"} <= whole.keys()
    best = [torch.load(tmp_path / name / "checkpoints" / "best.ckpt", weights_only=False) for name in ("one", "two")]
    for key, value in best[0]["state_dict"].items():
        torch.testing.assert_close(best[1]["state_dict"][key], value, rtol=0, atol=2e-4, msg=key)
