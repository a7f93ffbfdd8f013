"""The store in one process: what is written is read back, and everything wrong with a store is told."""

import json
import logging
import pickle
import shutil
from collections import namedtuple
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from mangakd.core.errors import UserError
from mangakd.core.spec import Head
from mangakd.store.manifest import REFILL, Manifest
from mangakd.store.reader import StoreReader
from mangakd.store.writer import StoreWriter

HEAD = Head("labels", 3, ("a", "b", "c"))
MANIFEST = Manifest(teacher="t0", tokenizer="v0", head=HEAD, members=2)


def some_keys(count: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(-(2**63), 2**63, count, dtype=np.int64)


def logits_of(keys: np.ndarray, manifest: Manifest = MANIFEST) -> np.ndarray:
    """(N, M, C) float32, a function of the key alone."""
    shape = (len(keys), manifest.members, manifest.head.outputs)
    offsets = np.arange(shape[1] * shape[2]).reshape(shape[1:])
    return ((keys % 1009)[:, None, None] / 64 + offsets).astype(np.float32)


def records_of(keys: np.ndarray, manifest: Manifest = MANIFEST) -> np.ndarray:
    return manifest.codec.encode({"logits": logits_of(keys, manifest)})


def fill(folder: Path, keys: np.ndarray, manifest: Manifest = MANIFEST, shard_rows: int = 16) -> int:
    with StoreWriter(folder, manifest, shard_rows) as writer:
        return writer.capture(keys, lambda positions: records_of(keys[positions], manifest))


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.glob("shard-*"))


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir() if path.name != "writer.lock"}


@pytest.mark.parametrize("members", [1, 3])
def test_roundtrip_in_any_order(tmp_path: Path, members: int) -> None:
    manifest = replace(MANIFEST, members=members)
    keys = some_keys(50)
    assert fill(tmp_path, keys, manifest) == 50
    assert names(tmp_path) == [f"shard-0000{i}.npy" for i in range(4)]
    reader = StoreReader(tmp_path, manifest)
    asked = np.random.default_rng(1).permutation(np.concatenate([keys, keys[:5]]))
    found = reader.lookup(asked)["logits"]
    assert len(reader) == 50 and found.dtype == np.float32 and found.shape == (55, members, 3)
    np.testing.assert_array_equal(found, logits_of(asked, manifest))


def test_layout_is_plain_numpy(tmp_path: Path) -> None:
    keys = some_keys(20)
    fill(tmp_path, keys)
    with (tmp_path / "shard-00000.npy").open("rb") as file:
        index, records = np.load(file), np.load(file)
    assert index.dtype == np.dtype([("key", "<i8"), ("records", "<i4")])
    assert records.dtype == np.dtype([("logits", "<f4", (2, 3))]) and MANIFEST.record_bytes == 2 * 3 * 4
    np.testing.assert_array_equal(index["key"], keys[:16])  # in the caller's order


def test_float16_halves_the_logits(tmp_path: Path) -> None:
    manifest = replace(MANIFEST, dtype="float16")
    keys = some_keys(20)
    fill(tmp_path, keys, manifest)
    found = StoreReader(tmp_path, manifest).lookup(keys)["logits"]
    assert manifest.record_bytes == 2 * 3 * 2 and found.dtype == np.float32
    np.testing.assert_array_equal(found, logits_of(keys).astype(np.float16).astype(np.float32))


def test_repeated_keys_are_computed_once(tmp_path: Path) -> None:
    keys = some_keys(20)
    asked: list[int] = []
    told: list[int] = []

    def compute(positions: np.ndarray) -> np.ndarray:
        asked.extend(positions.tolist())
        return records_of(np.concatenate([keys, keys])[positions])

    with StoreWriter(tmp_path, MANIFEST, shard_rows=8) as writer:
        plan = writer.plan(np.concatenate([keys, keys]))
        assert (plan.examples, plan.records, plan.record_bytes, plan.total_bytes) == (20, 20, 24, 720)
        assert str(plan) == "20 examples × 36 bytes = 720 bytes"
        assert writer.capture(np.concatenate([keys, keys]), compute, told.append) == 20
        np.testing.assert_array_equal(writer.stored, np.sort(keys))
        assert writer.plan(keys).examples == 0
        assert writer.capture(keys, compute) == 0
    assert asked == list(range(20)) and told == [8, 8, 4]


def test_other_data_is_appended(tmp_path: Path) -> None:
    first, second = some_keys(20, 1), some_keys(20, 2)
    fill(tmp_path, first)
    before = (tmp_path / "shard-00001.npy").read_bytes()
    both = np.concatenate([second, first])
    assert fill(tmp_path, both) == 20
    assert (tmp_path / "shard-00001.npy").read_bytes() == before and len(names(tmp_path)) == 4
    np.testing.assert_array_equal(StoreReader(tmp_path, MANIFEST).lookup(both)["logits"], logits_of(both))


def test_of_two_records_with_one_key_the_first_wins(tmp_path: Path) -> None:
    keys = some_keys(16)
    fill(tmp_path / "a", keys)
    with StoreWriter(tmp_path / "b", MANIFEST, 16) as writer:
        writer.capture(keys, lambda positions: MANIFEST.codec.encode({"logits": logits_of(keys[positions]) + 1}))
    line = json.loads((tmp_path / "b" / "journal.jsonl").read_text()) | {"name": "shard-00001.npy"}
    (tmp_path / "b" / "shard-00000.npy").rename(tmp_path / "a" / "shard-00001.npy")
    with (tmp_path / "a" / "journal.jsonl").open("a") as file:
        file.write(json.dumps(line) + "\n")
    np.testing.assert_array_equal(StoreReader(tmp_path / "a").lookup(keys)["logits"], logits_of(keys))


def test_misses_are_counted(tmp_path: Path) -> None:
    keys = some_keys(20)
    fill(tmp_path, keys)
    reader = StoreReader(tmp_path, MANIFEST)
    asked = np.concatenate([keys[:3], some_keys(2, 9)])
    np.testing.assert_array_equal(reader.missing(asked), asked[3:])
    with pytest.raises(UserError, match=r"2 of 5 examples .*cache-teacher"):
        reader.lookup(asked)


def test_an_empty_store_misses_everything(tmp_path: Path) -> None:
    fill(tmp_path, some_keys(0))
    reader = StoreReader(tmp_path, MANIFEST)
    assert len(reader) == 0 and len(reader.missing(some_keys(3))) == 3
    with pytest.raises(UserError, match="3 of 3"):
        reader.lookup(some_keys(3))


def test_a_missing_store_names_the_command(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"no store .*cache-teacher"):
        StoreReader(tmp_path / "nowhere", MANIFEST)


OTHER = {
    "teacher": "t1",
    "tokenizer": "v1",
    "head": replace(HEAD, names=("a", "c", "b")),
    "members": 3,
    "dtype": "float16",
}


@pytest.mark.parametrize("field", OTHER)
def test_every_field_is_compared(tmp_path: Path, field: str, caplog: pytest.LogCaptureFixture) -> None:
    keys = some_keys(4)
    fill(tmp_path, keys)
    expected = replace(MANIFEST, **{field: OTHER[field]})
    for opening in (lambda: StoreReader(tmp_path, expected), lambda: fill(tmp_path, keys, expected)):
        with pytest.raises(UserError) as caught:
            opening()
        for part in (field, str(tmp_path), f"teacher.allow_mismatch=[{field}]", "`teacher.store`", REFILL):
            assert part in str(caught.value)
    with caplog.at_level(logging.WARNING):
        reader = StoreReader(tmp_path, expected, allow_mismatch=[field])
    assert field in caplog.text
    np.testing.assert_array_equal(reader.lookup(keys)["logits"], logits_of(keys))  # as stored


def test_all_differences_are_told_at_once(tmp_path: Path) -> None:
    fill(tmp_path, some_keys(4))
    expected = replace(MANIFEST, teacher="t1", head=Head("labels", 2, ("a", "b")))
    with pytest.raises(
        UserError, match=r"'t0' in the store, 't1' expected; head is .*3.* in the store, .*2.* expected"
    ):
        StoreReader(tmp_path, expected)
    with pytest.raises(UserError, match="head is "):
        StoreReader(tmp_path, expected, allow_mismatch=["teacher"])
    with pytest.raises(UserError, match="did you mean teacher"):
        StoreReader(tmp_path, expected, allow_mismatch=["techer"])


def test_unreadable_manifests(tmp_path: Path) -> None:
    fill(tmp_path, some_keys(4))
    path = tmp_path / "manifest.json"
    content = path.read_text()
    path.write_text(content.replace('"format": 3', '"format": 1'))
    with pytest.raises(UserError, match=r"has format 1, this version of mangakd reads format 3.*cache-teacher"):
        StoreReader(tmp_path, MANIFEST)
    path.write_text(content[:40])
    with pytest.raises(UserError, match="cannot be read"):
        StoreReader(tmp_path, MANIFEST)
    path.unlink()
    with pytest.raises(UserError, match="nobody knows what"):
        fill(tmp_path, some_keys(4))


def test_impossible_manifests() -> None:
    with pytest.raises(UserError, match=r"dtype 'float61'.*did you mean float16"):
        replace(MANIFEST, dtype="float61")
    with pytest.raises(UserError, match=r"kind 'top_k'.*did you mean topk"):
        replace(MANIFEST, kind="top_k")
    for wrong in ({"kind": "topk", "size": 3}, {"size": 3}, {"head": Head("tokens", 9)}):
        with pytest.raises(UserError, match="cannot hold answers of"):
            replace(MANIFEST, **wrong)
    with pytest.raises(UserError, match="members ≥ 1"):
        replace(MANIFEST, members=0)
    with pytest.raises(UserError, match="0 outputs"):
        replace(MANIFEST, head=Head("labels", 0))


def flip(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[-5] ^= 1
    path.write_bytes(data)


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-5])


@pytest.mark.parametrize("damage", [flip, cut, Path.unlink, lambda path: path.write_bytes(b"")])
def test_a_damaged_shard_is_found_and_refilled(tmp_path: Path, damage) -> None:
    keys = some_keys(50)
    fill(tmp_path, keys)
    good = contents(tmp_path)
    damage(tmp_path / "shard-00001.npy")
    with pytest.raises(UserError, match=r"shard-00001\.npy .* damaged .*cache-teacher"):
        StoreReader(tmp_path, MANIFEST)
    if damage is not flip:  # without hashing, only the size can be wrong
        with pytest.raises(UserError, match="damaged"):
            StoreReader(tmp_path, MANIFEST, verify=False)
    assert fill(tmp_path, keys) == 16
    refilled = contents(tmp_path)
    assert sorted(refilled.pop("journal.jsonl").splitlines()) == sorted(good.pop("journal.jsonl").splitlines())
    assert refilled == good
    np.testing.assert_array_equal(StoreReader(tmp_path, MANIFEST).lookup(keys)["logits"], logits_of(keys))


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_what_is_not_finite_is_refused(tmp_path: Path, bad: float) -> None:
    keys = some_keys(40)
    logits = logits_of(keys)
    logits[[17, 20], 1, 2] = bad
    with StoreWriter(tmp_path, MANIFEST, 16) as writer, pytest.raises(UserError, match=r"2 of 16 .* positions 17, 20;"):
        writer.capture(keys, lambda positions: MANIFEST.codec.encode({"logits": logits[positions]}))
    assert len(StoreReader(tmp_path)) == 16  # the shard before is kept, the bad one is not written


def test_what_float16_cannot_hold_is_refused(tmp_path: Path) -> None:
    keys = some_keys(4)
    manifest = replace(MANIFEST, dtype="float16")
    with StoreWriter(tmp_path, manifest) as writer, pytest.raises(UserError, match=r"teacher\.stored_dtype=float32"):
        writer.capture(keys, lambda positions: manifest.codec.encode({"logits": np.full((4, 2, 3), 1e5, np.float32)}))


def test_another_shape_is_refused(tmp_path: Path) -> None:
    keys = some_keys(4)
    with StoreWriter(tmp_path, MANIFEST) as writer, pytest.raises(UserError, match=r"\(4, 3\).*\(4, 2, 3\)"):
        writer.capture(keys, lambda positions: MANIFEST.codec.encode({"logits": np.zeros((4, 3), np.float32)}))


def test_a_wrong_number_of_records_is_refused(tmp_path: Path) -> None:
    keys = some_keys(4)
    with (
        StoreWriter(tmp_path, MANIFEST) as writer,
        pytest.raises(UserError, match="3 answers for 4 sequences that have 4"),
    ):
        writer.capture(keys, lambda positions: records_of(keys[:3]))


def test_a_full_disk_is_told_before_writing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    usage = namedtuple("usage", "total used free")
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage(10**6, 10**6 - 1000, 1000))
    keys = some_keys(32)
    with pytest.raises(UserError, match=r"needs 1\.2 kB .*32 examples × 36 bytes.* has 1\.0 kB free"):
        fill(tmp_path, keys)
    assert names(tmp_path) == []
    assert fill(tmp_path, keys[:27]) == 27


def test_pickling_opens_the_maps_again(tmp_path: Path) -> None:
    keys = some_keys(50)
    fill(tmp_path, keys)
    packed = pickle.dumps(StoreReader(tmp_path, MANIFEST))
    assert len(packed) < 1000
    np.testing.assert_array_equal(pickle.loads(packed).lookup(keys)["logits"], logits_of(keys))
