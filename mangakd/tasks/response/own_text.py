"""On-policy batches of a language model: the student's own answers to the prompts of a batch, as targets."""

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from mangakd.core.outputs import TARGETS, Batch
from mangakd.models.encoder import Encoder
from mangakd.models.generation import Sampling, Writer
from mangakd.tasks.base import OwnText


def own_text(
    student: Encoder, batch: Batch, sampling: Sampling, seeds: Sequence[int], writer: Writer, longest: int
) -> OwnText:
    """The student's last answer of each sequence in place of the given one. It is read by both models.

    A prompt is all before the last run of targets: the earlier answers of a conversation stay as they are given, and are no
    targets. A plain text is written anew from its first token on. longest: tokens of a sequence.
    """
    inputs = batch["student"]
    ids, starts = inputs["input_ids"], last_answers(inputs[TARGETS])
    prompts = [row[:start].tolist() for row, start in zip(ids.cpu(), starts, strict=True)]
    texts = writer.write(student.model, prompts, sampling, seeds, longest=longest)
    rows = [torch.tensor([*prompt, *text.ids]) for prompt, text in zip(prompts, texts, strict=True)]
    lengths = torch.tensor([len(row) for row in rows])
    places = torch.arange(int(lengths.max()))
    mask = places < lengths[:, None]
    targets = mask & (places >= torch.tensor(starts)[:, None])
    new = {"input_ids": pad_sequence(rows, True, writer.pad), "attention_mask": mask.long(), TARGETS: targets}
    own = {name: each.to(ids.device) for name, each in new.items()}
    counts = {"targets": int(targets.sum()), "tokens": int(lengths.sum()), "cells": int((lengths**2).sum())}
    return OwnText({**batch, "student": own, "teacher": own, "next": own["input_ids"][own[TARGETS]]}, counts)


def last_answers(targets: Tensor) -> list[int]:
    """Where the last run of targets of each sequence begins. targets: (S, T)."""
    begins = targets[:, 1:] & ~targets[:, :-1]
    starts: list[int] = (targets.shape[1] - 1 - begins.flip(1).int().argmax(1)).tolist()
    return starts
