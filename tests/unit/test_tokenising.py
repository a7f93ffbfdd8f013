"""Tokens and their keys, made in chunks: the tokenizer's own ids, few texts at a time, whole files, and made once."""

import hashlib
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from contract.tiny_models import WORDS, texts, tokenizer
from tokenizers.processors import TemplateProcessing
from transformers import AutoModelForSequenceClassification, XLNetConfig

from mangakd.core import cpu
from mangakd.data import token_files, tokenising
from mangakd.data.encoded import EncodedSplit, Sides, joined
from mangakd.data.tokenising import tokenise
from mangakd.data.tokens import Concatenation, Sequences
from mangakd.export.graph import inputs_of

LINES = [*texts(60), "", " ", "order \ud83d late", "é 東京 🎌", *texts(60, seed=1), "refund " * 400]


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    """Several texts a chunk, several chunks a record batch, several record batches a file."""
    monkeypatch.setattr(tokenising, "_CHUNK", 500)
    monkeypatch.setattr(token_files, "_RECORD_BATCH", 300)


def typed_tokenizer() -> Any:
    """As XLNet's: the last token has a type of its own."""
    made = tokenizer()
    made.backend_tokenizer.post_processor = TemplateProcessing(
        "$A:0 [SEP]:0 [CLS]:2", special_tokens=[("[CLS]", 2), ("[SEP]", 3)]
    )
    made.model_input_names = ["input_ids", "token_type_ids", "attention_mask"]
    return made


def rows(tokens: Sequences) -> list[list[int]]:
    return [tokens[i].tolist() for i in range(len(tokens))]


def key(ids: list[int]) -> int:
    """As in stores of every earlier version."""
    content = np.asarray(ids, dtype=np.int32).tobytes()
    return int.from_bytes(hashlib.blake2b(content, digest_size=8).digest(), "little", signed=True)


@pytest.mark.parametrize("make", [tokenizer, lambda: tokenizer(closed=False), typed_tokenizer])
def test_ids_types_and_keys_are_those_of_the_tokenizer(make: Callable[[], Any], small: None, tmp_path: Path) -> None:
    reader = make()
    wanted = reader([text.replace("\ud83d", "\ufffd") for text in LINES], truncation=True, max_length=16)
    for _ in range(2):  # made, and read back
        tokens = tokenise(LINES, reader, 16, tmp_path)
        assert rows(tokens) == wanted["input_ids"]
        assert tokens.keys.tolist() == [key(ids) for ids in wanted["input_ids"]]
        assert tokens.lengths.tolist() == [len(ids) for ids in wanted["input_ids"]]
        assert isinstance(tokens.ids, np.ndarray) and not tokens.ids.flags.owndata, "a view of the mapped file"
    (file,) = tmp_path.glob("*.arrow")
    content = pa.ipc.open_file(pa.memory_map(str(file)))
    assert content.num_record_batches > 2 and content.schema.field("input_ids").type == pa.large_list(pa.int32())
    assert (tokens.types is not None) == ("token_type_ids" in content.schema.names) == (make is typed_tokenizer)


def test_types_reach_the_batch(small: None, tmp_path: Path) -> None:
    reader = typed_tokenizer()
    halves = [tokenise(lines, reader, 16, tmp_path) for lines in (LINES[:70], LINES[70:])]
    split = joined([EncodedSplit(Sides(half, half, 7, 7), {}) for half in halves])
    positions = [3, 68, 69, 70, 124, 61]
    batch = split.collate(positions)["student"]
    assert list(batch) == ["input_ids", "attention_mask", "token_type_ids"]
    for row, position in enumerate(positions):
        text = LINES[position].replace("\ud83d", "\ufffd")
        wanted = reader(text, truncation=True, max_length=16)
        mask = batch["attention_mask"][row].bool()
        for name in ("input_ids", "token_type_ids"):
            assert batch[name][row][mask].tolist() == wanted[name]
        assert batch["input_ids"][row][~mask].eq(7).all()


def test_a_model_learns_from_and_is_exported_with_the_same_inputs(tmp_path: Path) -> None:
    config = XLNetConfig(vocab_size=200, d_model=16, n_layer=1, n_head=2, d_inner=16)
    model = AutoModelForSequenceClassification.from_config(config)
    for reader in (tokenizer(), typed_tokenizer()):
        tokens = tokenise(LINES, reader, 16, tmp_path)
        assert set(inputs_of(model, reader)) == {*tokens.inputs(np.arange(3), 0)}


def test_joined_tokens_are_not_copied(tmp_path: Path) -> None:
    parts = [tokenise(texts(9, seed), tokenizer(), 16, tmp_path) for seed in range(3)]
    whole = Concatenation(parts)
    assert rows(whole) == [ids for part in parts for ids in rows(part)]
    assert np.array_equal(whole.keys, np.concatenate([part.keys for part in parts]))
    assert not any(isinstance(value, np.ndarray) and value.size > len(whole) for value in vars(whole).values())


def test_texts_without_tokens(tmp_path: Path) -> None:
    tokens = tokenise(["", " "], tokenizer(closed=False), 16, tmp_path)
    assert rows(tokens) == [[], []] and tokens.inputs(np.array([0, 1]), 0)["input_ids"].shape == (2, 0)


def test_few_texts_are_in_memory_at_a_time(small: None, tmp_path: Path) -> None:
    drawn = 0

    class Texts(list[str]):
        def __iter__(self) -> Iterator[str]:
            nonlocal drawn
            drawn = 0
            for text in super().__iter__():
                drawn += 1
                yield text

    done, ahead = 0, []

    @contextmanager
    def progress(title: str, total: int) -> Iterator[Callable[[int], None]]:
        assert (title, total) == ("tokenise", 2000)

        def advance(count: int) -> None:
            nonlocal done
            done += count
            ahead.append(drawn - done)

        yield advance

    tokenise(Texts(["where is my order"] * 2000), tokenizer(), 16, tmp_path, progress)
    chunk = -(-500 // (len("where is my order") + 16))
    assert done == 2000 and max(ahead) <= 2 * cpu.cores() * chunk < 2000


def test_a_crash_leaves_no_half_file(small: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    encode, calls = tokenising._encode, []

    def fail(*args: Any) -> Any:
        calls.append(args)
        if len(calls) > 4:
            raise MemoryError
        return encode(*args)

    with monkeypatch.context() as patch:
        patch.setattr(tokenising, "_encode", fail)
        with pytest.raises(MemoryError):
            tokenise(LINES, tokenizer(), 16, tmp_path)
    assert not [*tmp_path.glob("*.*")]
    tokens = tokenise(LINES, tokenizer(), 16, tmp_path)
    (file,) = tmp_path.glob("*.*")
    file.replace(file.with_suffix(".tmp"))  # as a killed process leaves it
    assert rows(tokenise(LINES, tokenizer(), 16, tmp_path)) == rows(tokens)
    assert [*tmp_path.glob("*.*")] == [file]


HOLD_LOCK = """
import fcntl, os, sys
handle = open(sys.argv[1], "w")
fcntl.lockf(handle, fcntl.LOCK_EX)
print("locked", flush=True)
sys.stdin.readline()
os.replace(sys.argv[2], sys.argv[3])
"""


def test_a_second_process_waits_and_reads_what_the_first_made(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    wanted = rows(tokenise(LINES, tokenizer(), 16, tmp_path))
    (file,) = tmp_path.glob("*.arrow")
    file.replace(tmp_path / "made elsewhere")
    places = [tmp_path / "locks" / file.stem, tmp_path / "made elsewhere", file]
    other = subprocess.Popen(
        [sys.executable, "-c", HOLD_LOCK, *map(str, places)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert other.stdin is not None and other.stdout is not None
    assert other.stdout.readline() == "locked\n"

    def release(*_: object) -> None:
        other.stdin.write("\n")
        other.stdin.flush()

    monkeypatch.setattr("mangakd.core.locks.log.info", release)  # called once the lock is found taken
    monkeypatch.setattr(tokenising, "_encode", None)
    assert rows(tokenise(LINES, tokenizer(), 16, tmp_path)) == wanted
    assert other.wait(10) == 0


@pytest.mark.parametrize("cut", [0, 100, -10])
def test_a_damaged_file_is_made_again(cut: int, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    wanted = rows(tokenise(LINES, tokenizer(), 16, tmp_path))
    (file,) = tmp_path.glob("*.arrow")
    content = file.read_bytes()
    file.unlink()
    file.write_bytes(content[:cut])
    assert rows(tokenise(LINES, tokenizer(), 16, tmp_path)) == wanted
    assert "are damaged" in caplog.text and file.read_bytes() == content


def test_keys_follow_the_tokens_and_nothing_else(tmp_path: Path) -> None:
    lines = texts(30)
    base = tokenise(lines, tokenizer(), 16, tmp_path)
    assert len(set(base.keys.tolist())) == 30
    shuffled = tokenise(lines[::-1], tokenizer(), 16, tmp_path)
    assert shuffled.keys.tolist() == base.keys[::-1].tolist(), "the order must not matter"
    assert tokenise(lines[:4], tokenizer(), 16, tmp_path).keys.tolist() == base.keys[:4].tolist()
    shorter = tokenise(lines, tokenizer(), 8, tmp_path)
    cut = base.lengths > 8
    assert cut.any() and not cut.all()
    assert ((shorter.keys != base.keys) == cut).all(), "a key changes where truncation changes the tokens"
    for other in (tokenizer(WORDS[::-1]), tokenizer(closed=False)):
        assert not set(tokenise(lines, other, 16, tmp_path).keys.tolist()) & set(base.keys.tolist())


def test_tokens_are_made_once(tmp_path: Path) -> None:
    def files() -> dict[Path, int]:
        return {path: path.stat().st_mtime_ns for path in tmp_path.glob("*.*")}

    made = rows(tokenise(texts(10), tokenizer(), 16, tmp_path))
    before = files()
    assert len(before) == 1, "no temporary file is left"
    assert rows(tokenise(texts(10), tokenizer(), 16, tmp_path)) == made and files() == before
    from_the_left = tokenizer()
    from_the_left.truncation_side = "left"
    assert rows(tokenise(texts(10), from_the_left, 8, tmp_path)) != rows(tokenise(texts(10), tokenizer(), 8, tmp_path))
    tokenise(texts(10), tokenizer(WORDS[::-1]), 16, tmp_path)
    tokenise(texts(10), tokenizer(closed=False), 16, tmp_path)
    tokenise(texts(11), tokenizer(), 16, tmp_path)
    assert len(files()) == 6
