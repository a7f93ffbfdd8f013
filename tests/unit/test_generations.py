"""Texts that models write for the report: which prompts, their scores, the file and the report's section."""

import json
import math
from pathlib import Path

import numpy as np
import pytest
import tiny_language
import torch
from chat_samples import ASK, REPLY, chat_tokenizer

from mangakd.core.errors import UserError
from mangakd.data.encoded import EncodedSplit
from mangakd.data.rows import NOTHING, Rows
from mangakd.evaluation.generations import DRAWN, FILE, GREEDY, Example, Generation, Text, read, save
from mangakd.evaluation.report import html, markdown
from mangakd.evaluation.report.generations import section
from mangakd.models.encoder import Encoder
from mangakd.models.generation import Sampling
from mangakd.runs.generations import Generations
from mangakd.runs.texts import Tokeniser
from mangakd.tasks.base import Samples
from mangakd.tasks.response.encode import COLUMNS
from mangakd.tasks.response.judge import ResponseJudge
from mangakd.tasks.response.task import Response

TOKENIZER = chat_tokenizer("chatml")


def rows() -> Rows:
    columns = {name: [NOTHING[kind]] * 6 for name, kind in COLUMNS.items()}
    columns["prompt"] = [f"{ASK} {i}" for i in range(5)] + [""]
    columns["answer"] = [f"{REPLY} {i} #### {i}" for i in range(5)] + [""]
    columns["context"] = [("where is it", "a book")] * 5 + [()]
    columns["text"] = [""] * 5 + ["a plain text, which asks nothing"]
    return Rows(columns)


def encoded(task: Response, folder: Path) -> EncodedSplit:
    head = task.head(None, TOKENIZER)  # type: ignore[arg-type]
    return task.encode(rows(), head, Tokeniser(TOKENIZER, TOKENIZER, 200, folder))


def samples(folder: Path, count: int = 9) -> Samples:
    task = Response(generate=count, sampling=Sampling(1.0, max_new_tokens=12))
    split = encoded(task, folder)
    made = task.samples(split.rows_of(rows()), split, TOKENIZER, 200)
    assert made is not None
    return made


def writer() -> Encoder:
    ids = {"eos_token_id": TOKENIZER.eos_token_id, "pad_token_id": TOKENIZER.pad_token_id}
    return tiny_language.encoder("llama", 2, vocab_size=len(TOKENIZER), max_position_embeddings=256, **ids)


def test_examples_are_rows_with_a_prompt(tmp_path: Path) -> None:
    examples = samples(tmp_path).examples
    assert [each.question for each in examples] == [f"{ASK} {i}" for i in range(5)]
    assert [each.reference for each in examples] == [f"{REPLY} {i} #### {i}" for i in range(5)]
    assert examples[0].context == ("where is it", "a book")
    assert [each.question for each in samples(tmp_path, 2).examples] == [f"{ASK} {i}" for i in (0, 4)]
    task = Response()
    assert task.samples(rows(), encoded(task, tmp_path), TOKENIZER, 200) is None


def test_texts_and_their_scores(tmp_path: Path) -> None:
    asked, done = samples(tmp_path), list[int]()
    texts = asked.write(writer(), done.append)
    assert texts == samples(tmp_path).write(writer(), done.append) and len(texts) == 5
    assert sum(done) == 2 * asked.ways * len(texts), "the progress ends at its total"
    assert len({each[DRAWN].text for each in texts}) == 5 and all(each[DRAWN] != each[GREEDY] for each in texts)
    for each in texts:
        assert set(each[GREEDY].scores) == set(ResponseJudge.written)
        assert 1 <= each[GREEDY].scores["tokens"] <= 12 and each[GREEDY].scores["final_answer"] == 0


def generations() -> list[Generation]:
    def text(text: str, score: float) -> dict[str, Text]:
        scores = dict.fromkeys(ResponseJudge.written, score) | {"grounded": math.nan}
        return {GREEDY: Text(text, scores), DRAWN: Text(f"{text} \u2028 <drawn>", scores)}

    return [
        Generation(
            Example(f"question {i}", "42", ("a",)), {"teacher": text("t", 1.0), "student": text("s", float(i % 2))}
        )
        for i in range(8)
    ]


def test_the_file_keeps_everything(tmp_path: Path) -> None:
    save(tmp_path, generations())
    lines = (tmp_path / FILE).read_text().split("\n")
    assert len(lines) == 9 and all(map(json.loads, lines[:-1]))
    again = read(tmp_path)
    assert [each.example for each in again] == [each.example for each in generations()]
    assert again[0].texts["student"][DRAWN].text == "s \u2028 <drawn>"
    assert math.isnan(again[0].texts["teacher"][GREEDY].scores["grounded"])
    assert read(tmp_path / "nowhere") == []
    (tmp_path / FILE).write_text('{"example": 3}\n')
    with pytest.raises(UserError, match="is damaged"):
        read(tmp_path)


def test_the_section(tmp_path: Path) -> None:
    assert section(tmp_path, ResponseJudge(), 100, 0) == []
    made = generations()
    more = [Generation(each.example, {**each.texts, "baseline": each.texts["teacher"]}) for each in made]
    for content, word in ((made, "ROUGE-L | 1.000 [1.000, 1.000] | 0.500"), (more, "-0.500")):
        save(tmp_path, content)
        sections = section(tmp_path, ResponseJudge(), 100, 0)
        text = markdown.page("t", sections)
        assert word in text and "question 4" in text and "question 5" not in text
        assert "grounded" not in text.replace(FILE, "") and "content words" not in text
        assert "<drawn>" not in html.page("t", sections) and "&lt;drawn&gt;" in html.page("t", sections)


def test_models_write_as_they_come_and_are_as_before(tmp_path: Path) -> None:
    made, model = Generations(samples(tmp_path, 2), 6, tmp_path, torch.device("cpu")), writer().train()
    made.add("teacher", [])
    assert read(tmp_path) == []
    made.add("student", [model])
    assert model.training and [[*each.texts] for each in read(tmp_path)] == [["student"]] * 2
    made.add("baseline", [model])
    assert [[*each.texts] for each in read(tmp_path)] == [["student", "baseline"]] * 2
    assert np.isfinite([p.detach().sum() for p in model.parameters()]).all()


def test_a_number_of_rows_below_0_is_refused() -> None:
    with pytest.raises(UserError, match="generate=-1"):
        Response(generate=-1)
