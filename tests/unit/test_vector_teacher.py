"""teacher=vectors: vectors that a file keeps reach the texts that they are of, from every kind of file."""

import json
import logging
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.feather
import pyarrow.parquet
import pytest
import torch
from contract.tiny_models import VECTOR, WORDS, silent, tokenizer

from mangakd.core.errors import UserError
from mangakd.core.requires import Need
from mangakd.core.spec import Head
from mangakd.data.rows import Rows
from mangakd.data.sequence_texts import SequenceTexts
from mangakd.runs.texts import Tokeniser
from mangakd.tasks.embedding.task import Embedding
from mangakd.tasks.rerank.task import Rerank
from mangakd.teachers.options import TeacherContext
from mangakd.teachers.vectors import Vectors

CPU, D = torch.device("cpu"), 6
TASK = Embedding(prompts={"teacher": {"query": "w100 "}})
FORMATS = (".npy", ".parquet", ".arrow", ".feather", ".jsonl", ".json")


def rows(start: int) -> Rows:
    """Pairs, of which the second has a negative."""
    words = [" ".join(WORDS[start + i : start + i + 3]) for i in range(7)]
    columns = {"text": [""] * 3, "anchor": words[:3], "positive": words[3:6], "negatives": [(), (words[6],), ()]}
    return Rows(columns, [4, 5, 6], "data.path=a.jsonl", "line")


TEXTS = {
    name: SequenceTexts(rows(start), TASK.sequences) for name, start in (("train", 0), ("validation", 20), ("test", 40))
}
ALL = [text for each in TEXTS.values() for _, (text,) in each]


def vector(text: str) -> list[float]:
    """Anchors have the prompt of queries, so that a text has one vector as a query and another one as a document."""
    seed = WORDS.index(text.split()[-1]) + 500 * text.startswith("w100")
    return np.random.default_rng(seed).normal(size=D).astype("f4").tolist()  # type: ignore[no-any-return]


def context(tmp_path: Path) -> TeacherContext:
    read = Tokeniser(tokenizer(), tokenizer(), 16, tmp_path)
    splits = {name: TASK.encode(each.rows, VECTOR, read) for name, each in TEXTS.items()}
    return TeacherContext(VECTOR, pytest.fail, splits, tmp_path, CPU, 4, silent, texts=TEXTS)


def table(dtype: pa.DataType) -> pa.Table:
    return pa.table({"text": ALL, "vector": pa.array([vector(text) for text in ALL], dtype)})


def lines(change: Callable[[list[dict[str, Any]]], object] = lambda rows: None) -> str:
    content: list[dict[str, Any]] = [{"text": f" {text}", "vector": vector(text)} for text in ALL]
    change(content)
    return "\n".join(map(json.dumps, content))


def file(folder: Path, ending: str) -> str:
    path = folder / f"v{ending}"
    match ending:
        case ".npy":
            np.save(path, np.array([vector(text) for text in ALL]))  # float64
            path.with_suffix(".txt").write_text("\n".join(ALL) + "\n")
        case ".parquet":
            pyarrow.parquet.write_table(table(pa.list_(pa.float32())), path, row_group_size=5)
        case ".arrow":
            with pa.ipc.new_file(str(path), table(pa.list_(pa.float32(), D)).schema) as sink:
                sink.write_table(table(pa.list_(pa.float32(), D)), max_chunksize=4)
        case ".feather":
            pyarrow.feather.write_feather(table(pa.large_list(pa.float64())), str(path))
        case ".jsonl":
            path.write_text(lines())
        case ".json":
            path.write_text(json.dumps([{"text": text, "vector": json.dumps(vector(text))} for text in ALL]))
    return str(path)


@pytest.mark.parametrize("ending", FORMATS)
def test_each_text_has_its_vector(ending: str, tmp_path: Path) -> None:
    options = Vectors(path=file(tmp_path, ending))
    options.check(TEXTS)
    given = context(tmp_path)
    provider = options.provider(given).prepare(CPU, Need(answer=True))
    assert options.models == [] and options.gives(provider.spec) == provider.gives == Need(answer=True)
    assert provider.spec.head == Head("vector", D) == options.head(VECTOR, [])
    assert provider.spec.name == f"vectors of v{ending}"
    for name, chosen in (("train", [2, 1]), ("test", [0, 1, 2])):
        batch = given.splits[name].collate(chosen)
        answer = provider(batch)
        wanted = [vector(text) for place in chosen for i, (text,) in TEXTS[name] if i == place]
        assert answer.logits is None and answer.vector is not None and answer.vector.dtype == torch.float32
        np.testing.assert_array_equal(answer.vector.numpy(), np.array(wanted, "f4"))
        assert torch.equal(answer.mask, batch["teacher"]["attention_mask"])
    assert isinstance(options.answers.table, np.memmap) == (ending == ".npy")


def test_a_fingerprint_is_of_the_vectors(tmp_path: Path) -> None:
    prints = []
    for content in (lines(), lines(lambda rows: rows.reverse()), lines(lambda rows: rows[1].update(vector=[1.0] * D))):
        (tmp_path / "v.jsonl").write_text(content)
        prints.append(Vectors(path=str(tmp_path / "v.jsonl")).provider(context(tmp_path)).fingerprint)
    assert prints[0] == prints[1] != prints[2]


def test_texts_with_the_same_tokens_are_counted(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """The tokenizer lower-cases: the model reads one text, and the file has two."""
    split = replace(TEXTS["train"].rows, columns={**TEXTS["train"].rows.columns, "positive": ["w3", "W3", "w4"]})
    texts = {"train": SequenceTexts(split, TASK.sequences)}
    read = Tokeniser(tokenizer(), tokenizer(), 16, tmp_path)
    given = replace(context(tmp_path), splits={"train": TASK.encode(split, VECTOR, read)}, texts=texts)
    content = [{"text": text, "vector": [float(i + 1)] * D} for i, (_, (text,)) in enumerate(texts["train"])]
    (tmp_path / "v.jsonl").write_text("\n".join(map(json.dumps, content)))
    with caplog.at_level(logging.INFO):
        provider = Vectors(path=str(tmp_path / "v.jsonl")).provider(given)
    assert "1 texts have the tokens of another text" in caplog.text
    answer = provider(given.splits["train"].collate([0, 1])).answer
    assert answer[1].tolist() == answer[3].tolist() == [2.0] * D


def cut(rows: list[dict[str, Any]]) -> None:
    del rows[0], rows[2:6]


BAD: list[tuple[Callable[[list[dict[str, Any]]], object], str]] = [
    (cut, r"has no vector for 5 of the 7 texts of train: 'w100 w0 w1 w2' \(line 4 of data\.path=a\.jsonl\); .*; .*; …\. Add"),
    (lambda rows: rows[3]["vector"].__setitem__(2, float("nan")),
     r"line 4 of teacher\.path=.*v\.jsonl \(' ?w4.*'\) has the number nan in dimension 3 of its vector"),
    (lambda rows: rows[3]["vector"].__setitem__(2, 1e39), r"line 4 of .* has the number inf in dimension 3"),
    (lambda rows: rows[3]["vector"].__setitem__(0, "one"), r"line 4 of teacher\.path=.* holds 'one', not a list of numbers"),
    (lambda rows: rows[3]["vector"].pop(), r"line 4 of .* has a vector of 5 dimensions, and the vectors before it have 6"),
    (lambda rows: rows[3].pop("vector"), r"line 4 of .* has a vector of 0 dimensions"),
    (lambda rows: rows[3].update(vector=[0] * D), r"line 4 of .* has a vector of zeros, which has no direction"),
    (lambda rows: rows.append({"text": ALL[2], "vector": vector(ALL[3])}),
     r"line 22 of .* has another vector than the same text before, line 3 of .*: their cosine is -?0\.\d+\. Remove one"),
    (lambda rows: [row.update(embedding=row.pop("vector")) for row in rows],
     r"has no column 'vector'; it has text, embedding\. Set teacher\.vector_column to one of these"),
    (lambda rows: [row.update(input=row.pop("text")) for row in rows], r"has no column 'text'.*Set teacher\.text_column"),
]  # fmt: skip


@pytest.mark.parametrize(("change", "words"), BAD, ids=[str(i) for i in range(len(BAD))])
def test_bad_vectors_are_refused(change: Callable[[list[dict[str, Any]]], object], words: str, tmp_path: Path) -> None:
    (tmp_path / "v.jsonl").write_text(lines(change))
    with pytest.raises(UserError, match=words):
        Vectors(path=str(tmp_path / "v.jsonl")).check(TEXTS)


@pytest.mark.parametrize("kind", ["ragged", "null", "null in a list", "nan"])
def test_bad_vectors_in_arrow_are_refused_with_their_row(kind: str, tmp_path: Path) -> None:
    values: list[Any] = [vector(text) for text in ALL]
    values[3] = {"ragged": [1.0], "null": None, "null in a list": [None] * D, "nan": [float("nan")] * D}[kind]
    pyarrow.parquet.write_table(pa.table({"text": ALL, "vector": values}), tmp_path / "v.parquet")
    with pytest.raises(UserError, match=r"row 4 of teacher\.path=.*v\.parquet.* (dimensions|number nan)"):
        Vectors(path=str(tmp_path / "v.parquet")).check(TEXTS)


def test_a_text_may_repeat_with_the_same_vector(tmp_path: Path) -> None:
    near = [number + 1e-6 for number in vector(ALL[2])]
    (tmp_path / "v.jsonl").write_text(lines(lambda rows: rows.append({"text": f"{ALL[2]}  ", "vector": near})))
    Vectors(path=str(tmp_path / "v.jsonl")).check(TEXTS)


def saved(tmp_path: Path, array: np.ndarray) -> Vectors:
    np.save(tmp_path / "v.npy", array)
    return Vectors(path=str(tmp_path / "v.npy"))


def test_an_array_and_its_texts_must_fit(tmp_path: Path) -> None:
    array = np.array([vector(text) for text in ALL], "f2")
    with pytest.raises(UserError, match=r"vectors without their texts, and there is no v\.txt or v\.jsonl beside it"):
        saved(tmp_path, array).check(TEXTS)
    other = tmp_path / "other.csv"
    other.write_text("input\n" + "\n".join(ALL) + "\n")
    options = replace(saved(tmp_path, array), texts=str(other), text_column="input")
    options.check(TEXTS)
    assert options.answers.table.dtype == np.float16
    (tmp_path / "v.txt").write_text("\n".join(ALL[:-1]))
    with pytest.raises(UserError, match=r"holds 21 vectors, and its texts in .*v\.txt are 20\. Row i must be"):
        saved(tmp_path, array).check(TEXTS)
    (tmp_path / "v.txt").write_text("\n".join(ALL))
    array[4, 1] = np.inf
    with pytest.raises(
        UserError, match=r"row 5 of teacher\.path=.*v\.npy, line 5 of its texts \('w6 w7 w8'\) has the number"
    ):
        saved(tmp_path, array).check(TEXTS)
    for wrong in (array[0], array[:, :, None], array[:, :0], array > 0, array.astype(str)):
        with pytest.raises(UserError, match=r"vectors of texts are numbers of shape \[texts, dimensions\]"):
            saved(tmp_path, wrong).check(TEXTS)
    for content in (b"no array", b"\x93NUMPY"):
        (tmp_path / "v.npy").write_bytes(content)
        with pytest.raises(UserError, match=r"v\.npy is no array of numbers"):
            Vectors(path=str(tmp_path / "v.npy")).check(TEXTS)
    with pytest.raises(UserError, match=r"unknown ending '\.csv\.gz'|unknown ending '\.gz'"):
        (tmp_path / "v.csv.gz").write_bytes(b"x")
        Vectors(path=str(tmp_path / "v.csv.gz")).check(TEXTS)


def test_other_heads_and_rows_are_refused(tmp_path: Path) -> None:
    options = Vectors(path=file(tmp_path, ".jsonl"))
    with pytest.raises(UserError, match=r"teacher=vectors gives vectors, and the task's head is a score"):
        options.head(Head("score", 1), [])
    pairs = SequenceTexts(Rows({"query": ["a"], "documents": [("b",)]}), Rerank().sequences)
    with pytest.raises(UserError, match=r"gives vectors of single texts, and this task reads pairs of texts"):
        options.check({"train": pairs})
