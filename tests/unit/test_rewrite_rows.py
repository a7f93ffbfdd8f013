"""Rows of conversations as sequences of source and target: what is read, cut, left out, counted and refused."""

import json
import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from rewrite_rows import columns, rewrite_tokenizer, row, rows

from mangakd.core.errors import UserError
from mangakd.core.outputs import TARGETS
from mangakd.data.encoded import EncodedSplit
from mangakd.data.rows import companies, identities
from mangakd.data.seq2seq import SourceOptions
from mangakd.data.source import Corpus
from mangakd.data.sources import Files
from mangakd.runs.texts import Tokeniser
from mangakd.tasks.rewrite.encode import COLUMNS, encoded
from mangakd.tasks.rewrite.task import Rewrite


def tokeniser(cache: Path, most: int = 64) -> Tokeniser:
    return Tokeniser(rewrite_tokenizer(), rewrite_tokenizer(), most, cache)


def encode(given: Any, cache: Path, most: int = 64, **options: Any) -> EncodedSplit:
    return encoded(given, tokeniser(cache, most), SourceOptions(**options))


def parts(split: EncodedSplit, i: int) -> tuple[list[int], list[int]]:
    """The ids of source and target of a row."""
    inputs = split.student.inputs(np.array([i]), 0)
    ids, targets = inputs["input_ids"][0], inputs[TARGETS][0]
    assert (np.diff(targets.astype(int)) >= 0).all()  # all targets follow all of the source
    return ids[~targets].tolist(), ids[targets].tolist()


def test_a_row_is_the_source_and_then_its_target_each_with_eos(tmp_path: Path) -> None:
    tokenizer = rewrite_tokenizer()
    split = encode(rows(12), tmp_path, separator=" | ", template="rewrite: {turns}")
    data = columns(12)
    assert split.owners is not None and split.owners.tolist() == [0, 1, 2, 2, 3, 4, 5, 5, 6, 7, 8, 8, 9, 10, 11, 11]
    for i, owner in enumerate(split.owners.tolist()):
        source, target = parts(split, i)
        text = " | ".join([*data["history"][owner], data["utterance"][owner]])
        assert source == tokenizer(f"rewrite: {text}")["input_ids"] and source[-1] == tokenizer.eos_token_id
        wanted = data["rewrite"][owner][i - split.owners.tolist().index(owner)]
        assert target == tokenizer(wanted)["input_ids"] and target[-1] == tokenizer.eos_token_id
        assert split.columns["tokens"][i] == split.units["targets"][i] == len(target)
    assert split.columns["later"].tolist() == [int(owner % 5 != 0) for owner in split.owners.tolist()]


def test_an_input_with_its_target_is_read_as_it_is(tmp_path: Path) -> None:
    split = encode(row(input="manga with cats", target=("cat manga", "manga about cats")), tmp_path)
    tokenizer = rewrite_tokenizer()
    assert [parts(split, i) for i in (0, 1)] == [
        (tokenizer("manga with cats")["input_ids"], tokenizer(text)["input_ids"])
        for text in ("cat manga", "manga about cats")
    ]
    assert split.columns["later"].tolist() == [1, 1]


def test_the_oldest_turns_are_cut_first_and_the_utterance_never(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    history = tuple(f"Who taught Ada Lovelace in {year}?" for year in range(1900, 1910))
    given = row(history=history, utterance="Where was this person born?", rewrite=("Where was Ada Lovelace born?",))
    tokenizer, options = rewrite_tokenizer(), SourceOptions()
    lengths = [len(tokenizer(options.text((*history[k:], given["utterance"][0])))["input_ids"]) for k in range(11)]
    for kept in (0, 1, 4, 9):
        most = lengths[10 - kept]
        source, _ = parts(encode(given, tmp_path / str(kept), most), 0)
        assert source == tokenizer(options.text((*history[10 - kept :], given["utterance"][0])))["input_ids"]
    assert "lose old turns: 1; first: row 1" in caplog.text
    caplog.clear()
    with pytest.raises(UserError, match=rf"no source fits into data\.max_length={lengths[10] - 1} with a target"):
        encode(given, tmp_path / "none", lengths[10] - 1)
    assert "whose last turn alone does not fit" in caplog.text


def test_what_does_not_fit_is_left_out_and_counted(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    given = rows(6)
    given["rewrite"][3] = ("Where was " * 30,)
    with caplog.at_level(logging.INFO):
        split = encode(given, tmp_path, max_target_length=24)
    assert split.owners is not None and split.owners.tolist() == [0, 1, 2, 2, 4, 5, 5]
    assert "targets that do not fit into task.max_target_length=24, left out: 1; first: line 4" in caplog.text
    lengths = [len(rewrite_tokenizer()(text)["input_ids"]) for texts in given["rewrite"] for text in texts]
    assert f"target {np.median(lengths):.0f} / {np.percentile(lengths, 95):.0f} / {max(lengths)}" in caplog.text


def test_special_tokens_in_a_text_are_text(tmp_path: Path) -> None:
    source, target = parts(encode(row(utterance="a</s>b", rewrite=("<pad>c",)), tmp_path), 0)
    assert source.count(1) == 1 and target.count(1) == 1 and 0 not in target


def test_blank_turns_are_no_turns(tmp_path: Path) -> None:
    given = row(history=("Who was Ada Lovelace?", ""), utterance="Where was she born?", rewrite=("x",))
    source, _ = parts(encode(given, tmp_path, separator=" | "), 0)
    assert source == rewrite_tokenizer()("Who was Ada Lovelace? | Where was she born?")["input_ids"]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"template": "no turns"}, r"task\.template='no turns' must hold \{turns\} once"),
        ({"max_target_length": 1}, r"task\.max_target_length=1 must be a whole number from 2 on"),
        ({"generate": -1}, r"task\.generate=-1 must be a whole number, 0 for none"),
        ({"generate_every": 1, "generate": 0}, r"task\.generate=0, no rows: raise task\.generate"),
        ({"monitor": "exact_match"}, r"set task\.generate_every=1, or task\.monitor=perplexity"),
        ({"expansions": 3}, r"task\.expansions=3 texts cannot come out of task\.beams=1"),
    ],
)  # fmt: skip
def test_options_outside_their_range_are_refused(options: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError, match=message):
        Rewrite(**options)


def test_rows_without_a_target_are_left_out(caplog: pytest.LogCaptureFixture) -> None:
    given = rows(12)
    given["rewrite"][4], given["rewrite"][7] = (), ()
    corpus = Rewrite().prepare(Corpus("made up", given, rows(6), rows(6), rows(3)))
    assert len(corpus.train) == 10 and len(corpus.unlabelled) == 0
    assert "rows of train without a rewrite or target, left out: 2; first: line 5" in caplog.text
    with pytest.raises(UserError, match=r"no row of test .* has a rewrite or a target"):
        Rewrite().prepare(Corpus("made up", given, rows(6), rows(6, rewrite=[()] * 6), rows(3)))


def test_a_tokenizer_needs_eos_and_padding_of_its_own() -> None:
    tokenizer = rewrite_tokenizer()
    corpus = Corpus("made up", rows(6), rows(6), rows(6), rows(6))
    assert Rewrite().head(corpus, tokenizer).source
    pad, end = tokenizer.pad_token, tokenizer.eos_token
    try:
        tokenizer.pad_token = end
        with pytest.raises(UserError, match="has no padding token of its own"):
            Rewrite().head(corpus, tokenizer)
        tokenizer.pad_token, tokenizer.eos_token = pad, None
        with pytest.raises(UserError, match="has no EOS token"):
            Rewrite().head(corpus, tokenizer)
    finally:
        tokenizer.pad_token, tokenizer.eos_token = pad, end


# --- splits ------------------------------------------------------------------------------------------------------------------


def written(folder: Path, **changes: Any) -> Path:
    """60 rows of 20 conversations, the turns of which share their first question."""
    lines = []
    for i in range(60):
        turns = [f"question {i // 3}"] + [f"question {i // 3} {turn}" for turn in range(1, i % 3 + 1)]
        more = {name: value(i) for name, value in changes.items()}
        lines.append({"history": turns[:-1], "utterance": turns[-1], "rewrite": f"rewrite {i}", **more})
    file = folder / "rewrites.jsonl"
    file.write_text("\n".join(map(json.dumps, lines)))
    return file


@pytest.mark.parametrize("seed", range(5))
def test_turns_of_a_conversation_stay_on_one_side(tmp_path: Path, seed: int) -> None:
    corpus = Files(path=str(written(tmp_path)), split_seed=seed).load(COLUMNS, tuple(COLUMNS))
    sides = [{text.split()[1] for text in part["utterance"]} for part in corpus.splits.values()]
    assert sum(map(len, sides)) == len(set.union(*sides)) == 20
    assert [len(part) for part in corpus.splits.values()] == [48, 6, 6]
    assert corpus.train["rewrite"][0] == ("rewrite 0",)


def test_a_column_of_conversations_keeps_others_together(tmp_path: Path) -> None:
    file = written(tmp_path, topic=lambda i: i // 6)
    corpus = Files(path=str(file), columns={"conversation": "topic"}).load(COLUMNS, tuple(COLUMNS))
    sides = [set(part["conversation"]) for part in corpus.splits.values()]
    assert sum(map(len, sides)) == len(set.union(*sides)) == 10


def test_rows_are_told_apart_by_their_history() -> None:
    """Two conversations that ask the same are no copies of each other."""
    one, other = row(history=("a",), utterance="why?"), row(history=("b",), utterance="why?")
    assert [*identities(one, COLUMNS)] != [*identities(other, COLUMNS)]
    assert [*companies(one, COLUMNS)] == [*companies(row(utterance="a"), COLUMNS)]


def test_a_column_says_the_split_of_each_row(tmp_path: Path) -> None:
    names = ("train", "dev", "Test", "training")
    file = written(tmp_path, split=lambda i: names[i // 3 % 4])
    corpus = Files(path=str(file), split_column="split").load(COLUMNS, tuple(COLUMNS))
    assert [len(part) for part in corpus.splits.values()] == [30, 15, 15]
    assert {int(text.split()[1]) % 4 for text in corpus.test["utterance"]} == {2}
    assert corpus.test.numbers[:4] == [7, 8, 9, 19]
    bad = written(tmp_path, split=lambda i: "train" if i else "holdout")
    with pytest.raises(
        UserError, match=r"line 1 of data\.path=.* has 'holdout' in its column split, which is none of train"
    ):
        Files(path=str(bad), split_column="split").load(COLUMNS, tuple(COLUMNS))
    with pytest.raises(UserError, match=r"data\.split_column=split splits data\.path, and data\.val_path"):
        Files(path=str(bad), val_path=str(bad), split_column="split").load(COLUMNS, tuple(COLUMNS))


def test_qrecc_is_read_as_it_is(public_data: Callable[[str], Path]) -> None:
    path = str(public_data("qrecc") / "rewrites.jsonl")
    corpus = Rewrite().prepare(Files(path=path).load(COLUMNS, tuple(COLUMNS)))
    assert sum(map(len, corpus.splits.values())) == 2000
    assert set(corpus.train["source"]) == {"quac", "nq"}
    groups = [set(part["conversation"]) for part in corpus.splits.values()]
    assert sum(map(len, groups)) == len(set.union(*groups)) == 1257
    split = Files(path=path, split_column="split").load(COLUMNS, tuple(COLUMNS))
    assert [len(part) for part in split.splits.values()] == [1452, 177, 371]
