"""What models write for the report: greedy and drawn answers to some prompts of a split, with their scores (tasks/texts.py)."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch

from mangakd.core.outputs import TARGETS
from mangakd.data.encoded import EncodedSplit
from mangakd.data.rows import Rows
from mangakd.evaluation.generations import DRAWN, GREEDY, Example, Text
from mangakd.models.encoder import Encoder
from mangakd.models.generation import Sampling, Writer, seed_of
from mangakd.tasks import texts
from mangakd.tasks.response.own_text import last_answers


@dataclass(frozen=True)
class Prompt:
    """ids: of the tokens before the last answer of a row. key: of the row's tokens, from which the seed of its texts follows."""

    ids: list[int]
    key: int
    example: Example


def prompts_of(rows: Rows, shown: list[str], split: EncodedSplit, tokenizer: Any, count: int) -> list[Prompt]:
    """At most `count`, spread evenly over the rows that have a prompt. rows, shown: the cells and the question of each."""
    inputs = [split.student.inputs(np.array([i]), 0) for i in range(len(split))]
    starts = [last_answers(torch.from_numpy(each[TARGETS]))[0] for each in inputs]
    prompted = [i for i, start in enumerate(starts) if start > 1]  # a plain text has one token before its targets
    chosen = [prompted[i] for i in np.linspace(0, len(prompted) - 1, min(count, len(prompted)), dtype=np.int64)]
    return [
        Prompt(
            inputs[i]["input_ids"][0, : starts[i]].tolist(),
            int(split.student.keys[i]),
            Example(shown[i], _decoded(tokenizer, inputs[i]["input_ids"][0, starts[i] :]), tuple(rows["context"][i])),
        )
        for i in chosen
    ]


def write_answers(
    student: Encoder, prompts: list[Prompt], tokenizer: Any, writer: Writer, sampling: Sampling, longest: int,
    advance: Callable[[int], object],
) -> list[Mapping[str, Text]]:  # fmt: skip
    """Of each prompt a greedy text and a drawn one. advance: called with the number of texts that were done."""
    ids, seeds = [prompt.ids for prompt in prompts], [seed_of(prompt.key) for prompt in prompts]
    ways = {GREEDY: replace(sampling, temperature=0.0, top_p=1.0), DRAWN: sampling}
    each = {
        way: writer.write(student.model, ids, own, seeds, advance=advance, longest=longest) for way, own in ways.items()
    }
    return [
        {
            way: _scored(_decoded(tokenizer, of_way[i].ids), len(of_way[i].ids), prompt.example)
            for way, of_way in each.items()
        }
        for i, prompt in enumerate(prompts)
    ]


def _decoded(tokenizer: Any, ids: Any) -> str:
    text: str = tokenizer.decode(ids, skip_special_tokens=True, clean_up_tokenization_spaces=False)
    return text.strip()


def _scored(text: str, tokens: int, example: Example) -> Text:
    scores = {
        "exact_match": texts.exact_match(text, example.reference),
        "rouge_l": texts.rouge_l(text, example.reference),
        "final_answer": texts.final_answer(text, example.reference),
        "grounded": texts.grounded(text, example.context),
        "repetition": texts.repetition(text),
        "tokens": float(tokens),
    }
    return Text(text, scores)
