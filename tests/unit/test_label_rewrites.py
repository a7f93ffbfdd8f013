"""Rewrites of a teacher as a file: of an encoder–decoder, greedy and the best of a beam, and of a language model by examples."""

import contextlib
import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from conftest import REPO
from transformers import AutoModelForSeq2SeqLM, AutoTokenizer

from mangakd.core.errors import UserError
from mangakd.data.sources import Files
from mangakd.labelling.forms import Rewrites, Turns
from mangakd.labelling.label import Options, label, read_prompts
from mangakd.labelling.provider import Answer, Request
from mangakd.labelling.seq2seq import Seq2Seq
from mangakd.models import embedded_t5
from mangakd.models.generation import Sampling
from mangakd.tasks.rewrite import encode

ROWS: list[dict[str, Any]] = [
    {"history": ["who wrote it", "she did"], "utterance": "when", "rewrite": "of a person", "answer": "in May", "source": "a"},
    {"history": [], "utterance": "where is the {history}", "conversation": "7"},
    {"input": "a title and no {utterance}"},
]  # fmt: skip
ASKED = Rewrites("Rewrite it.", "{history}\nLast: {utterance}", examples=[
    {"history": ["Who is Oda?"], "utterance": "And Mori?", "rewrite": "Who is Mori?"}, {"utterance": "Hi", "rewrite": "Hi"},
])  # fmt: skip


@contextlib.contextmanager
def no_bar(title: str, total: int) -> Iterator[Callable[[int], object]]:
    yield lambda rows: None


def rows_of(folder: Path, form: Turns, rows: list[dict[str, Any]] = ROWS) -> Any:
    file = folder / "turns.jsonl"
    file.write_text("\n".join(map(json.dumps, rows)))
    return read_prompts(str(file), {}, form)


TAUGHT = {
    "who wrote it ||| she did ||| when": "when did she write it", "where is the {history}": "where is it",
    "a title and no {utterance}": "a title", "book": "which book", "where is it": "where is the book",
}  # fmt: skip


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small T5 that has learnt a few targets, so that it ends its texts."""
    sizes = {**embedded_t5.SIZES, "d_model": 64, "d_kv": 16, "d_ff": 64}
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(embedded_t5, "SIZES", sizes)
        folder = embedded_t5.folder([*TAUGHT, *TAUGHT.values()], tmp_path_factory.mktemp("cache"))
    tokenizer, t5 = (each.from_pretrained(folder) for each in (AutoTokenizer, AutoModelForSeq2SeqLM))
    read, learnt = (tokenizer(list(side), padding=True, return_tensors="pt") for side in (TAUGHT, TAUGHT.values()))
    labels = learnt["input_ids"].masked_fill(learnt["attention_mask"] == 0, -100)
    optimiser = torch.optim.Adam(t5.parameters(), 3e-3)
    for _ in range(40):
        loss = t5(input_ids=read["input_ids"], attention_mask=read["attention_mask"], labels=labels).loss
        loss.backward()
        optimiser.step()
        optimiser.zero_grad()
    assert loss < 0.3
    t5.save_pretrained(folder)
    return folder


def test_a_language_model_is_shown_examples_and_then_asked(tmp_path: Path) -> None:
    first, second, third = ASKED.prompts(rows_of(tmp_path, ASKED))
    before = (
        ("system", "Rewrite it."), ("user", "Who is Oda?\nLast: And Mori?"), ("assistant", "Who is Mori?"),
        ("user", "(none)\nLast: Hi"), ("assistant", "Hi"),
    )  # fmt: skip
    assert first == (*before, ("user", "who wrote it\nshe did\nLast: when"))
    assert second[-1] == ("user", "(none)\nLast: where is the {history}")
    assert third[-1] == ("user", "(none)\nLast: a title and no {utterance}")


def test_the_command_asks_as_its_yaml_says() -> None:
    asked = Rewrites(**yaml.safe_load((REPO / "conf" / "label.yaml").read_text())["rewriting"])
    messages = asked.messages(["Who wrote Nana?"], "And Mao?")
    assert messages[0][0] == "system" and messages[-1][1].endswith("Who wrote Nana?\nLast question: And Mao?")
    assert [role for role, _ in messages[1:]] == ["user", "assistant"] * len(asked.examples) + ["user"]


@pytest.mark.parametrize(
    ("entries", "words"),
    [
        ({"template": "{history}"}, "must hold {utterance} once"),
        ({"template": "{utterance} {history} {history}"}, "{history} at most once"),
        (
            {"examples": [{"utterance": "a", "rewrite": "b"}, {"utterance": "a"}]},
            r"examples\[1\] has utterance; an example",
        ),
        ({"examples": [{"utterance": "a", "rewrite": "b", "answer": "c"}]}, "has utterance, rewrite, answer"),
    ],
)
def test_words_that_ask_nothing_are_refused(entries: dict[str, Any], words: str) -> None:
    with pytest.raises(UserError, match=words):
        Rewrites(**{"instruction": "", "template": "{utterance}", **entries})


@pytest.mark.parametrize("row", [{"utterance": " "}, {"utterance": "a", "input": "b"}])
def test_a_row_that_asks_nothing_is_refused(row: dict[str, str], tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"line 2 .*utterance"):
        [*Turns().prompts(rows_of(tmp_path, Turns(), [ROWS[0], row]))]


def test_rewrites_are_rows_of_the_task(tmp_path: Path, model: Path) -> None:
    """The file is read as training data: several texts are expansions, and what stood beside the utterance stays."""
    provider = Seq2Seq(path=str(model), beams=4, best=3)
    options, out = Options(Sampling(max_new_tokens=10), form=Turns()), tmp_path / "out.jsonl"
    label(rows_of(tmp_path, Turns()), provider, options, out, tmp_path / "cache", no_bar)
    source = Files(path=str(out))
    source.needs, source.optional = encode.COLUMNS, tuple(encode.COLUMNS)
    rows = source.read()["train"]
    assert rows["history"] == [("who wrote it", "she did"), (), ()] and rows["answer"] == ["in May", "", ""]
    assert rows["utterance"] == ["when", "where is the {history}", ""] and rows["input"][2] == ROWS[2]["input"]
    assert [texts[0] for texts in rows["rewrite"]] == list(TAUGHT.values())[:3]
    assert max(map(len, rows["rewrite"])) > 1 and "of a person" not in out.read_text()
    before = out.read_bytes()
    label(rows_of(tmp_path, Turns()), provider, options, out, tmp_path / "cache", no_bar)
    assert out.read_bytes() == before
    with pytest.raises(UserError, match="beams='4', and this run has '2'"):
        label(rows_of(tmp_path, Turns()), Seq2Seq(path=str(model), beams=2), options, out, tmp_path / "cache", no_bar)


def requests(count: int = 9) -> list[Request]:
    return [Request((("user", "book " * (i % 4 + 1)), ("user", f"where is it {'now ' * i}")), i) for i in range(count)]


@pytest.mark.parametrize("options", [{}, {"beams": 3, "best": 2}])
def test_texts_do_not_depend_on_what_is_done(options: dict[str, int], model: Path) -> None:
    sampling, done = Sampling(max_new_tokens=5), list[int]()
    small = Seq2Seq(path=str(model), tokens=25, **options)
    parts = [*small.answers(requests(), sampling, 0, done.append)]
    whole = [answer for part in parts for answer in part]
    assert len(parts) > 1 and sum(done) == len(whole) == 9
    for start in (1, 4, 9):
        assert [each for part in small.answers(requests(), sampling, start, print) for each in part] == whole[start:]
    large = Seq2Seq(path=str(model), **options)
    assert [each for part in large.answers(requests(), sampling, 0, print) for each in part] == whole


def test_the_best_texts_of_a_beam_end_and_differ(model: Path) -> None:
    """The first is the greedy one where the model is sure; none is left out for another that means the same tokens."""
    asked = [Request((("user", text),), 0) for text in list(TAUGHT)[1:]]
    sampling = Sampling(max_new_tokens=10)
    ((*greedy,),), ((*best,),) = (
        Seq2Seq(path=str(model), **beams).answers(asked, sampling, 0, print) for beams in ({}, {"beams": 6, "best": 3})
    )
    assert [answer.text for answer in greedy] == [answer.text for answer in best] == list(TAUGHT.values())[1:]
    assert all(answer.more == () for answer in greedy) and max(len(answer.more) for answer in best) == 2
    assert all(len({answer.text, *answer.more, ""}) == 2 + len(answer.more) for answer in best)
    assert {answer.reason for answer in (*greedy, *best)} == {"ended"}


def test_a_source_that_does_not_fit_has_no_text(model: Path) -> None:
    long = Request((("user", "book " * 40),), 0)
    ((none, some),) = Seq2Seq(path=str(model), max_length=30).answers(
        [long, *requests(1)], Sampling(max_new_tokens=4), 0, print
    )
    assert none == Answer("", "too long", 0) and some.tokens > 0


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"best": 2}, r"provider.best=2 .* provider.beams to 2 or more"),
        ({"beams": 0}, "provider.beams=0 must be"),
        ({"max_length": True}, "provider.max_length=True"),
        ({"template": "no"}, "must hold {turns} once"),
        ({"dtype": "int8"}, "provider.dtype=int8"),
    ],
)
def test_options_outside_their_range_are_refused(options: dict[str, Any], words: str) -> None:
    with pytest.raises(UserError, match=words):
        Seq2Seq(path="nowhere", **options)


def test_a_search_does_not_draw(model: Path) -> None:
    with pytest.raises(UserError, match=r"temperature=1\.0 draws"):
        next(Seq2Seq(path=str(model), beams=2).answers(requests(1), Sampling(1.0), 0, print))
