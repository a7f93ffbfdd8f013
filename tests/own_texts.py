"""Rows of a tiny language model, and its on-policy fit over them, on any number of processes."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import tiny
import tiny_language
import torch

from mangakd.core.spec import Head
from mangakd.data.encoded import EncodedSplit, Sides
from mangakd.data.tokens import Tokens
from mangakd.losses.base import LossCallback
from mangakd.losses.tokens import TokensLoss
from mangakd.models.generation import Writer
from mangakd.tasks.base import Author
from mangakd.tasks.response.own_text import own_text
from mangakd.tasks.response.task import Response
from mangakd.teachers.local import LocalTeacher
from mangakd.training import launch
from mangakd.training.callbacks.save_last import SaveEvery
from mangakd.training.fit import fit
from mangakd.training.hardware import Hardware
from mangakd.training.on_policy import OnPolicy, OwnTexts

LONGEST = 24
WRITER = Writer((2,), 0, tiny_language.VOCAB)
TOKENS = Head("tokens", tiny_language.VOCAB)


def author(longest: int = LONGEST) -> Author:
    return lambda student, batch, sampling, seeds: own_text(student, batch, sampling, seeds, WRITER, longest)


def split(rows: int, seed: int) -> EncodedSplit:
    """Prompts of 3 to 9 tokens, each with an answer of 1 to 8."""
    rng = np.random.default_rng(seed)
    prompts, answers = rng.integers(3, 10, rows), rng.integers(1, 9, rows)
    lengths = prompts + answers
    ids = rng.integers(3, tiny_language.VOCAB, lengths.sum()).astype(np.int32)
    targets = np.concatenate([np.arange(length) >= prompt for length, prompt in zip(lengths, prompts, strict=True)])
    starts = np.cumsum(lengths) - lengths
    both = np.concatenate([ids, targets.astype(np.int32)])
    tokens = Tokens(both, starts, lengths, np.arange(rows) + seed * 10_000, targets=starts + len(ids))
    return EncodedSplit(Sides(tokens, tokens, 0, 0), {"tokens": answers}, {"targets": answers})


def part(folder: Path, hardware: Hardware, share: float, resume: Path | None = None, **losses: LossCallback) -> None:
    """One process's part of a fit: 2 epochs of 4 steps, the last of 6 rows."""
    torch.set_num_threads(1)
    teacher, student = (tiny_language.encoder("llama", seed) for seed in (1, 2))
    bound = tiny.bound(student, teacher, **(losses or {"tokens": TokensLoss(alpha=0.5)}))
    own = OwnTexts(OnPolicy(share, temperature=4.0, max_new_tokens=9), author(), seed=3)
    plan = replace(
        tiny.plan(folder, hardware=hardware, epochs=2, resume=resume), task=Response(), train=split(30, 1),
        validation=split(6, 2), own_texts=own, save_every=SaveEvery(every_steps=1),
    )  # fmt: skip
    fit(student, bound, LocalTeacher(teacher, TOKENS), plan)


def state(folder: Path) -> dict[str, Any]:
    state: dict[str, Any] = torch.load(folder / "checkpoints" / "last.ckpt", weights_only=False)["state_dict"]
    return state


def weights(folder: Path, hardware: Hardware, share: float) -> dict[str, Any]:
    folder.mkdir(exist_ok=True, parents=True)
    if hardware.world == 1:
        part(folder, hardware, share)
    else:
        launch.start(part, (folder, hardware, share), hardware, folder, no_user_error)
    return state(folder)


def no_user_error(error: BaseException) -> str | None:
    return None


def run(*, share: float = 1.0, seed: int = 3, longest: int = LONGEST, **options: Any) -> OwnTexts:
    return OwnTexts(OnPolicy(share, **{"temperature": 4.0, "max_new_tokens": 9} | options), author(longest), seed)
