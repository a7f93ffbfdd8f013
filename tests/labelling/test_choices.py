"""Exact log-probabilities of choices by a language model on this machine, against a computation without a cache."""

import math
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import torch
from chat_samples import ASK
from language_folder import save_language_model
from prepared import labelled
from transformers import AutoModelForCausalLM, AutoTokenizer

from mangakd.labelling.forms.label_names import LabelNames
from mangakd.labelling.forms.labels import Labels
from mangakd.labelling.forms.soft_labels import SoftLabels
from mangakd.labelling.local import Local
from mangakd.labelling.provider import Answer, Request
from mangakd.labelling.templates import Template
from mangakd.models.generation import Sampling

CHOICES = ("book", "book order", "thank you", "a")


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_language_model(tmp_path_factory.mktemp("choices") / "model", positions=256)


def by_hand(folder: Path, prompt: str, choice: str) -> float:
    """log p of the choice and the end of the turn, each from a whole forward, in float64."""
    tokenizer = AutoTokenizer.from_pretrained(folder, split_special_tokens=False)
    net = AutoModelForCausalLM.from_pretrained(folder).double().eval()
    text = tokenizer.apply_chat_template(
        [{"role": "user", "content": prompt}], add_generation_prompt=True, tokenize=False
    )
    before = tokenizer(text, add_special_tokens=False)["input_ids"]
    own = tokenizer(choice, add_special_tokens=False)["input_ids"]
    with torch.no_grad():
        logits = net(input_ids=torch.tensor([before + own])).logits[0].log_softmax(-1)
    total = sum(float(logits[len(before) + i - 1, token]) for i, token in enumerate(own))
    stops = {tokenizer.eos_token_id, tokenizer.convert_tokens_to_ids("<|im_end|>")}
    return total + float(logits[-1, sorted(stops)].logsumexp(-1))


def answers(folder: Path, prompts: list[str], sampling: Sampling | None = None, **options: int) -> list[Answer]:
    requests = [Request((("user", prompt),), seed, choices=CHOICES) for seed, prompt in enumerate(prompts)]
    local = Local(path=str(folder), **options)
    return [each for part in local.answers(requests, sampling or Sampling(), 0, print) for each in part]


@pytest.mark.parametrize("tokens", [8192, 60])
def test_choices_have_their_exact_probabilities(tokens: int, model: Path) -> None:
    """tokens=60: the choices of a prompt are read in several batches."""
    prompts = [ASK, f"{ASK} book book book"]
    for prompt, answer in zip(prompts, answers(model, prompts, tokens=tokens), strict=True):
        wanted = {choice: by_hand(model, prompt, choice) for choice in CHOICES}
        assert answer.logprobs[0] == pytest.approx(wanted, abs=1e-4)
        assert answer.text == max(wanted, key=lambda choice: wanted[choice]) and answer.reason == "ended"
        assert sum(map(math.exp, wanted.values())) < 1


def test_an_answer_does_not_depend_on_the_rows_beside_it(model: Path) -> None:
    prompts = [ASK, "book", f"{ASK} {ASK}"]
    alone = [answers(model, [prompt])[0] for prompt in prompts]
    assert answers(model, prompts) == alone == answers(model, prompts, tokens=300)


def test_drawn_choices_follow_their_probabilities(model: Path) -> None:
    """300 draws at temperature 2: p ∝ exp(logprob / 2)."""
    each = answers(model, ["book"] * 300, Sampling(temperature=2.0))
    logits = np.array([*each[0].logprobs[0].values()]) / 2
    wanted = np.exp(logits - logits.max()) / np.exp(logits - logits.max()).sum()
    counts = Counter(answer.text for answer in each)
    shares = np.array([counts[choice] / 300 for choice in CHOICES])
    assert np.abs(shares - wanted).max() < 4 * np.sqrt(0.25 / 300)
    assert len(counts) > 1


def test_labels_and_soft_labels_of_a_local_model(model: Path, tmp_path: Path) -> None:
    labels = LabelNames(dict.fromkeys(CHOICES, ""))
    rows = [{"text": f"{ASK} {word}"} for word in ("book", "order", "thank you")]
    forms = {
        "hard": Labels(labels=labels, prompt=Template.of("labels")),
        "soft": SoftLabels(labels=labels, prompt=Template.of("labels"), least_mass=0.0),
    }
    written = {}
    for name, form in forms.items():
        (tmp_path / name).mkdir()
        written[name], unusable = labelled(tmp_path / name, form, rows, Local(path=str(model)))
        assert len(written[name]) == 3 and not unusable
    assert [row["label"] for row in written["hard"]] == [row["label"] for row in written["soft"]]
    assert all(sum(row["probabilities"].values()) == pytest.approx(1) for row in written["soft"])
    assert all(0 < row["missing"] < 1 for row in written["soft"])
