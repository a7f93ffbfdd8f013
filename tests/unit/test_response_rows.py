"""Rows of language models: read from files, as conversations, and as a split whose batches hold target tokens."""

import json
import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet
import pytest
import torch
from chat_samples import CHATML, IM, chat_tokenizer, plain_tokenizer

from mangakd.core.errors import UserError
from mangakd.core.outputs import each_tensor
from mangakd.data.chats import ChatOptions
from mangakd.data.encoded import EncodedSplit, joined
from mangakd.data.loader import TrainLoader
from mangakd.data.rows import Rows, identities
from mangakd.data.sampler import Share
from mangakd.data.source import Corpus
from mangakd.data.sources import Files
from mangakd.data.steps import RowSteps
from mangakd.runs.texts import Tokeniser
from mangakd.tasks.response.encode import COLUMNS, chats_of, encoded

QUESTION = "{context}\n\n{prompt}"
Objects = list[dict[str, Any]]


def message(role: str, content: str) -> dict[str, str]:
    return {"role": role, "content": content}


def talks(count: int = 20) -> Objects:
    """One or two turns each; every third opens with a question that another one has."""
    return [
        {"messages": [message("system", ""), *(message(role, f"{role} {i // (1 + (i % 3 == 0))}, {turn}")
         for turn in range(1 + i % 2) for role in ("user", "assistant"))]}
        for i in range(count)
    ]  # fmt: skip


WRITERS: dict[str, Callable[[Path, Objects], object]] = {
    ".jsonl": lambda file, rows: file.write_text("\n".join(map(json.dumps, rows))),
    ".json": lambda file, rows: file.write_text(json.dumps(rows)),
    ".parquet": lambda file, rows: pyarrow.parquet.write_table(pa.Table.from_pylist(rows), file),
}


def load(folder: Path, rows: Objects, ending: str = ".jsonl", **options: Any) -> Corpus:
    file = folder / f"talk{ending}"
    WRITERS[ending](file, rows)
    return Files(path=str(file), **options).load(COLUMNS, tuple(COLUMNS))


@pytest.mark.parametrize("ending", [".jsonl", ".json", ".parquet"])
def test_messages_are_read_from_every_kind_of_file(ending: str, tmp_path: Path) -> None:
    corpus = load(tmp_path, talks(), ending)
    wanted = {tuple((each["role"], each["content"]) for each in row["messages"]) for row in talks()}
    assert {talk for rows in corpus.splits.values() for talk in rows["messages"]} == wanted
    assert sum(map(len, corpus.splits.values())) == 20 and corpus.digest("train") == load(tmp_path, talks()).digest(
        "train"
    )


def test_a_split_keeps_conversations_of_one_first_question_together(tmp_path: Path) -> None:
    turns = [
        message("user", "first"),
        message("assistant", "reply"),
        message("user", "more"),
        message("assistant", "yes"),
    ]
    rows = [{"messages": [message("user", f"q {i}"), *turns[1 : 2 + 2 * part]]} for i in range(30) for part in (0, 1)]
    corpus = load(tmp_path, rows)
    sides = [set(identities(rows, COLUMNS)) for rows in corpus.splits.values()]
    assert len(set.union(*sides)) == 30 == sum(map(len, sides))


def test_half_a_surrogate_pair_is_replaced_in_messages_too(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    rows = [*talks(), {"messages": [message("user", "lone \ud83d"), message("assistant", "yes")]}]
    contents = {
        content for split in load(tmp_path, rows).splits.values() for talk in split["messages"] for _, content in talk
    }
    assert "lone \ufffd" in contents and "half a surrogate pair" in caplog.text


BAD: list[tuple[Any, str]] = [
    ("hello", "line 2 of data.path=.*holds 'hello', not a list of messages .*data.columns.messages"),
    (["hello"], "holds 'hello' as message 1"),
    ([{"from": "human", "value": "x"}], "holds 'from' in message 1, which is not read"),
    ([{**message("assistant", "x"), "tool_calls": [1]}], "holds 'tool_calls' in message 1"),
    ([message("human", "x")], r"holds the role 'human' in message 1 \(known: system, developer, user"),
    ([message("user", "x"), message("assistant", " ")], "holds the content ' ' in message 2"),
    ([{"role": "user", "content": [{"type": "text"}]}], "holds the content .*in message 1"),
    ([{"role": "user"}], "holds the content 'None' in message 1"),
]


@pytest.mark.parametrize(("cell", "reason"), BAD)
def test_messages_that_are_none_are_refused_by_line(cell: Any, reason: str, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=reason):
        load(tmp_path, [talks()[0], {"messages": cell}])


@pytest.mark.parametrize("ending", [".csv", ".tsv"])
def test_csv_holds_no_messages(ending: str, tmp_path: Path) -> None:
    file = tmp_path / f"talk{ending}"
    file.write_text("messages,x\n[],1\n".replace(",", "," if ending == ".csv" else "\t"))
    with pytest.raises(
        UserError, match=r"data.columns.messages=messages .*CSV and TSV cannot hold: write .* as JSONL or Parquet"
    ):
        Files(path=str(file)).load(COLUMNS, tuple(COLUMNS))


def test_passages_are_a_text_or_a_list(tmp_path: Path) -> None:
    cells: Objects = [
        {"context": "one text"},
        {"context": ["one", "two"]},
        {"context": None},
        {"context": '["of", "CSV"]'},
        {},
    ]
    read = [
        row
        for split in load(
            tmp_path, [{"prompt": f"q {i}", "answer": "a", **cell} for i, cell in enumerate(cells * 5)]
        ).splits.values()
        for row in split["context"]
    ]
    assert sorted(set(read)) == [(), ("of", "CSV"), ("one", "two"), ("one text",)]
    for cell, reason in (
        (["one", " "], "no text at place 2 of its context"),
        ({"a": 1}, "not a text or a list of texts"),
    ):
        with pytest.raises(UserError, match=reason):
            load(tmp_path, [{"prompt": "q", "answer": "a", "context": cell}])


def test_copies_of_a_first_question_are_shown(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    other = tmp_path / "held_out.jsonl"
    other.write_text(json.dumps({"prompt": "q 3", "answer": "another"}))
    load(tmp_path, [{"prompt": f"q {i}", "answer": "a"} for i in range(20)], val_path=str(other))
    assert "texts that train has, too, so that their scores are too good: 1; first: line 1, 'q 3'" in caplog.text


def test_prompts_answers_and_passages_are_read_from_csv(tmp_path: Path) -> None:
    file = tmp_path / "pairs.csv"
    lines = [f"question {i},answer {i},passage {i}" for i in range(20)]
    file.write_text("question,answer,context\n" + "\n".join(lines))
    corpus = Files(path=str(file), columns={"prompt": "question"}).load(COLUMNS, tuple(COLUMNS))
    chat = next(chats_of(corpus.train, "be kind", QUESTION))
    i = corpus.train["answer"][0].split()[1]
    assert chat == (("system", "be kind"), ("user", f"passage {i}\n\nquestion {i}"), ("assistant", f"answer {i}"))


def rows(**columns: list[Any]) -> Rows:
    return Rows(columns, [], "data.path=rows.jsonl", "line")


TALK = (("user", "a"), ("assistant", "b"), ("user", "c"), ("assistant", "d"), ("user", "e"))


def test_context_is_written_before_the_last_question_that_has_an_answer() -> None:
    (chat,) = chats_of(
        rows(messages=[TALK], context=[("one {prompt}", "two")], system=[""]), "", "{context} | {prompt}"
    )
    assert chat == (*TALK[:2], ("user", "one {prompt}\n\ntwo | c"), *TALK[3:])


def test_a_system_prompt_of_the_row_comes_before_that_of_the_task() -> None:
    own = (("system", "own"), *TALK)
    (one, other, third) = chats_of(rows(messages=[TALK, TALK, own], system=["row", "", ""]), "task", QUESTION)
    assert [chat[0] for chat in (one, other, third)] == [("system", "row"), ("system", "task"), ("system", "own")]
    assert [*chats_of(rows(text=["a text"]), "task", QUESTION)] == ["a text"]


@pytest.mark.parametrize(
    ("columns", "reason"),
    [
        ({"prompt": "a"}, "has a prompt and no answer"),
        ({"answer": "a", "text": "b"}, "has an answer beside text and no prompt"),
        (
            {"prompt": "a", "answer": "b", "text": "c"},
            "holds prompt and text. A row holds one of messages, prompt, text",
        ),
        ({"answer": "b", "prompt": " "}, "holds neither messages nor a prompt nor a text"),
        ({"text": "a", "context": ("b",)}, "has a text beside a context"),
        ({"text": "a", "system": "b"}, "has a text beside a system prompt"),
        ({"messages": (("system", "a"), *TALK), "system": "b"}, "has a system prompt in its messages and another one"),
    ],
)
def test_rows_of_no_clear_kind_are_refused(columns: dict[str, Any], reason: str) -> None:
    with pytest.raises(UserError, match=f"line 1 of data.path=rows.jsonl {reason}"):
        [*chats_of(rows(**{name: [cell] for name, cell in columns.items()}), "", QUESTION)]


def tokeniser(folder: Path, student: Any, teacher: Any = None, most: int = 80) -> Tokeniser:
    return Tokeniser(student, student if teacher is None else teacher, most, folder)


MIXED = rows(
    messages=[TALK, (), ()],
    prompt=["", "where is my order?", ""],
    answer=["", "it is on its way", ""],
    text=["", "", "where is"],
)


def split_of(folder: Path, which: Rows = MIXED, kind: str = "chatml") -> tuple[EncodedSplit, Rows]:
    split = encoded(which, tokeniser(folder, chat_tokenizer(kind)), ChatOptions())
    return split, split.rows_of(which)


def test_a_batch_holds_targets_and_the_tokens_after_each_state(tmp_path: Path) -> None:
    split, owners = split_of(tmp_path)
    assert (
        len(split) == len(owners) == 3
        and split.units["targets"].tolist() == split.student.inputs(np.arange(3), 0)["targets"].sum(1).tolist()
    )
    batch = split.collate([2, 0, 1])
    student = batch["student"]
    targets, ids = student["targets"], student["input_ids"]
    assert (
        targets.dtype == torch.bool and not targets[:, 0].any() and not targets[~student["attention_mask"].bool()].any()
    )
    assert torch.equal(batch["next"], ids[:, 1:][targets[:, 1:]]) and batch["teacher"] is student
    assert (
        chat_tokenizer("chatml").decode(batch["next"])
        == " is<|im_end|>b<|im_end|>d<|im_end|>it is on its way<|im_end|>"
    )
    assert torch.equal(each_tensor(batch, torch.clone)["next"], batch["next"])


def test_conversations_and_left_out_answers_keep_their_row(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """Mistral's template gives each answer a sequence of its own."""
    long = " ".join(["word"] * 90)
    which = rows(messages=[TALK, (), ()], prompt=["", "q", "q"], answer=["", long, "yes"], system=["", "", "be kind"])
    with caplog.at_level(logging.WARNING):
        split, owners = split_of(tmp_path, which, "mistral")
    assert len(split) == 3 and owners["messages"] == [TALK, TALK, ()]
    assert owners["answer"] == ["", "", "yes"] and "left out: 1; first: line 2" in caplog.text


def test_joined_splits_pad_targets_with_false(tmp_path: Path) -> None:
    parts = [split_of(tmp_path)[0], split_of(tmp_path, rows(text=["where is my order? it is on its way"]))[0]]
    whole = joined(parts)
    batch = whole.collate([3, 0, 2])["student"]
    assert batch["targets"].dtype == torch.bool and not batch["targets"][~batch["attention_mask"].bool()].any()
    for place, (part, row) in enumerate([(1, 0), (0, 0), (0, 2)]):
        alone = parts[part].collate([row])["student"]["targets"][0]
        assert torch.equal(batch["targets"][place][: len(alone)], alone)
    assert whole.units["targets"].tolist() == [*parts[0].units["targets"], *parts[1].units["targets"]]


def test_steps_are_weighted_by_their_targets(tmp_path: Path) -> None:
    split, _ = split_of(tmp_path)
    scales = [
        (batch["scale"]["targets"], len(batch["next"]))
        for batch in TrainLoader(split, RowSteps(3), 0, Share(accumulate=3))
    ]
    total = sum(count for _, count in scales)
    assert len(scales) == 3 and all(scale == pytest.approx(3 * count / total) for scale, count in scales)


def test_the_teachers_template_serves_a_student_without_one(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    base, chat = plain_tokenizer(IM, None, "<|im_end|>"), plain_tokenizer(IM, None, "<|im_end|>")
    chat.chat_template = CHATML
    sides, owners, targets = tokeniser(tmp_path, base, chat).chats([TALK[:2]], rows(messages=[TALK[:2]]), ChatOptions())
    assert base.decode(sides.student[0]) == "<|im_start|>user\na<|im_end|>\n<|im_start|>assistant\nb<|im_end|>"
    assert sides.shared and owners.tolist() == [0] and targets.tolist() == [2] and "no chat template" not in caplog.text
    other = plain_tokenizer(("<s>", "</s>"), None, "</s>")
    sides, *_ = tokeniser(tmp_path, other, chat).chats([TALK[:2]], rows(messages=[TALK[:2]]), ChatOptions())
    assert other.decode(sides.student[0]) == "User:\na\nAssistant:\nb</s>" and "no chat template" in caplog.text


def test_instructions_people_wrote(public_data: Callable[[str], Path], tmp_path: Path) -> None:
    """The targets of 175 instructions are their outputs, to the letter."""
    lines = map(json.loads, (public_data("instructions") / "seed_tasks.jsonl").read_text().splitlines())
    pairs = [(each["instruction"], each["instances"][0]["input"], each["instances"][0]["output"]) for each in lines]
    pairs = [pair for pair in pairs if pair[2].strip()]
    which = rows(
        prompt=[pair[0] for pair in pairs], context=[(pair[1],) if pair[1].strip() else () for pair in pairs],
        answer=[pair[2] for pair in pairs],
    )  # fmt: skip
    reader = chat_tokenizer("chatml")
    split = encoded(which, tokeniser(tmp_path, reader, most=4096), ChatOptions())
    assert len(split) == len(pairs) == 175
    for i, answer in enumerate(split.rows_of(which)["answer"]):
        assert reader.decode(split.collate([i])["next"]) == f"{answer}<|im_end|>"
