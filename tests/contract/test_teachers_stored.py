"""What teachers do besides answering: fill a store once and go on after a kill, refuse a foreign one, learn weights."""

import dataclasses
import json
import logging
from functools import partial
from pathlib import Path

import pytest
import torch
from contract.tiny_models import HEAD, LABELS, SCORE, SEVERAL, Teachers, context
from torch import Tensor

from mangakd.core.errors import UserError
from mangakd.core.outputs import Batch, Outputs
from mangakd.core.requires import Need
from mangakd.core.spec import Head
from mangakd.data.loader import EvalBatches
from mangakd.store.reader import StoreReader
from mangakd.store.writer import StoreWriter
from mangakd.teachers import fill as module
from mangakd.teachers.base import TeacherProvider
from mangakd.teachers.cached import Cached
from mangakd.teachers.fill import fill, manifest_of
from mangakd.teachers.local import Local, LocalTeacher
from mangakd.teachers.options import TeacherContext
from mangakd.teachers.verify import verify

CPU = torch.device("cpu")
TRAIN, BATCH = 40, 8


def options(store: Path | None = None, seeds: tuple[int, ...] = (1,), **more: object) -> Cached:
    return Cached(path="bert", seeds=seeds, store=None if store is None else str(store), **more)  # type: ignore[arg-type]


def answers(provider: TeacherProvider, found: TeacherContext) -> Tensor:
    provider.prepare(CPU, Need(answer=True))
    return torch.cat([provider(batch).logits for split in found.splits.values() for batch in EvalBatches(split, BATCH)])


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in sorted(folder.iterdir()) if path.name != "writer.lock"}


# --- filling ---------------------------------------------------------------------------------------------------------


def test_filled_on_first_use_and_never_again(tmp_path: Path) -> None:
    load = Teachers()
    found = context(tmp_path, load)
    first = options().provider(found)
    batches = sum(-(-len(split) // BATCH) for split in found.splits.values())
    assert load.forwards == batches
    once = answers(first, found)
    assert load.forwards == batches, "a stored teacher asked the live one"
    second = options().provider(found)
    assert load.forwards == batches, "the second run filled again"
    assert torch.equal(answers(second, found), once)
    torch.testing.assert_close(once, answers(Local(path="bert", seed=1).provider(found), found), rtol=0, atol=1e-5)


def test_more_data_is_appended(tmp_path: Path) -> None:
    load = Teachers()
    small = context(tmp_path, load, rows=24)
    options().provider(small)
    before, asked = contents(next((tmp_path / "stores").iterdir())), load.forwards
    large = context(tmp_path, load, rows=TRAIN)  # the same 24 texts and 16 more
    assert set(small.splits["train"].teacher.keys) < set(large.splits["train"].teacher.keys)
    provider = options().provider(large)
    assert load.forwards == asked + 16 // BATCH
    (folder,) = (tmp_path / "stores").iterdir()
    after = contents(folder)
    assert all(after[name] == data for name, data in before.items() if name.endswith(".npy"))
    assert answers(provider, large).shape == (TRAIN + 20 + 9, len(LABELS))


class Killed(BaseException):
    """Stands for SIGKILL: nothing catches it."""


class Dying(LocalTeacher):
    """Dies at its n-th answer."""

    left = 0

    def __call__(self, batch: Batch) -> Outputs:
        self.left -= 1
        if self.left < 0:
            raise Killed
        return super().__call__(batch)


def test_a_killed_fill_goes_on_where_it_was(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "StoreWriter", partial(StoreWriter, shard_rows=16))
    load = Teachers()
    found = context(tmp_path, load)
    whole, torn = tmp_path / "whole", tmp_path / "torn"
    member = options().models[0]
    teacher = LocalTeacher(load(member), HEAD)
    manifest = manifest_of(teacher, found.precision)
    written = fill(whole, manifest, teacher, found)
    assert written == TRAIN + 20 + 9
    total = load.forwards
    dying = Dying(load(member), HEAD)
    dying.left = 3  # one shard is two batches of 8: the second shard is under way
    with pytest.raises(Killed):
        fill(torn, manifest, dying, found)
    assert sum(name.endswith(".npy") for name in contents(torn)) == 1
    load.forwards = 0
    assert fill(torn, manifest, LocalTeacher(load(member), HEAD), found) == written - 16
    assert load.forwards == total - 2
    assert contents(torn) == contents(whole)


def test_a_store_is_filled_in_the_precision_of_the_run(tmp_path: Path) -> None:
    """What the store holds is what a live teacher answers inside a bf16-mixed Trainer, and not its fp32 answer."""
    full = context(tmp_path, Teachers())
    mixed = dataclasses.replace(full, precision="bf16-mixed")
    stored = answers(options().provider(mixed), mixed)
    live = Local(path="bert", seed=1).provider(mixed)
    with torch.autocast("cpu", torch.bfloat16):
        torch.testing.assert_close(stored, answers(live, mixed).float(), rtol=0, atol=1e-2)
    assert (stored - answers(live, full)).abs().max() > 1e-5
    assert len(list((tmp_path / "stores").iterdir())) == 1
    options().provider(full)
    assert len(list((tmp_path / "stores").iterdir())) == 2


# --- refusing --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("field", "changes"),
    [
        ("teacher", {"seeds": (3,)}),
        ("members", {"seeds": (1, 3)}),
    ],
)
def test_a_store_of_another_teacher_is_refused(field: str, changes: dict[str, object], tmp_path: Path) -> None:
    found = context(tmp_path, Teachers())
    options(tmp_path / "store").provider(found)
    with pytest.raises(UserError, match=rf"{field} is .* in the store.*teacher\.store"):
        options(tmp_path / "store", **changes).provider(found)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("tokenizer", "other"),
        ("precision", "16-mixed"),
        ("head", {"names": [*LABELS[:4], "other"]}),
        ("head", {"names": LABELS[::-1]}),
        ("head", {"several": True}),
    ],
)
def test_a_store_of_something_else_is_refused(field: str, value: object, tmp_path: Path) -> None:
    found = context(tmp_path, Teachers())
    options(tmp_path / "store").provider(found)
    manifest = tmp_path / "store" / "manifest.json"
    fields = json.loads(manifest.read_text())
    fields[field] = {**fields[field], **value} if isinstance(value, dict) else value
    manifest.write_text(json.dumps(fields))
    with pytest.raises(UserError, match=rf"{field}(:| is) .*in the store"):
        options(tmp_path / "store").provider(found)


def test_a_difference_that_was_accepted_is_used_and_logged(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    load = Teachers()
    found = context(tmp_path, load)
    expected = answers(options(tmp_path / "store").provider(found), found)
    asked = load.forwards
    with caplog.at_level(logging.WARNING):
        other = options(tmp_path / "store", seeds=(3,), allow_mismatch=["teacher"]).provider(found)
    assert "used anyway because of teacher.allow_mismatch" in caplog.text
    assert torch.equal(answers(other, found), expected) and load.forwards == asked
    three = options(tmp_path / "store", seeds=(1, 3), allow_mismatch=["teacher", "members"]).provider(found)
    assert three.members == 1 and torch.equal(answers(three, found), expected)


def test_damage_is_mended_by_filling_and_refused_by_verify(tmp_path: Path) -> None:
    load = Teachers()
    found = context(tmp_path, load)
    store = tmp_path / "store"
    good = answers(options(store).provider(found), found)
    shard = store / "shard-00000.npy"
    shard.write_bytes(shard.read_bytes()[:-4] + b"\0\0\0\1")
    live = options().live(found)
    with pytest.raises(UserError, match=r"shard-00000\.npy"):
        verify(store, manifest_of(live, found.precision), live, "train", found)
    assert torch.equal(answers(options(store).provider(found), found), good)
    assert verify(store, manifest_of(live, found.precision), live, "train", found) < 1e-5


def test_a_text_that_is_not_stored_is_an_error_that_names_the_command(tmp_path: Path) -> None:
    provider = options().provider(context(tmp_path, Teachers()))
    batch = context(tmp_path, Teachers(), rows=80).splits["train"].collate([79, 0])
    with pytest.raises(UserError, match=r"1 of 2 examples.*mangakd cache-teacher"):
        provider(batch)


def logs(z: Tensor, head: Head) -> Tensor:
    """log p of each class, log p of each label's on and off, or the score itself."""
    if head.several:
        return -torch.stack([(1 + (-z).exp()).log(), (1 + z.exp()).log()])
    return z - z.exp().sum(-1, keepdim=True).log() if head.kind == "labels" else z


@pytest.mark.parametrize("head", [HEAD, SEVERAL, SCORE], ids=str)
def test_verify_finds_a_teacher_that_changed(head: Head, tmp_path: Path) -> None:
    load = Teachers(head)
    found = context(tmp_path, load)
    store = tmp_path / "store"
    options(store, seeds=(0, 1)).provider(found)
    live = options(seeds=(0, 1)).live(found)
    assert verify(store, manifest_of(live, found.precision), live, "validation", found) < 1e-5
    with torch.no_grad():
        next(load.loaded[-1].model.parameters()).mul_(1.1)  # behind the provider's back: its fingerprint is the old one
    assert verify(store, manifest_of(live, found.precision), live, "validation", found) > 1e-2
    split, gaps = found.splits["validation"], []
    reader = StoreReader(store, manifest_of(live, found.precision))
    for row in range(len(split)):  # all of them: fewer than verify asks for
        now = live(split.collate([row])).members[:, 0].double()
        before = torch.from_numpy(reader.lookup(split.teacher.keys[[row]])["logits"][0]).double()
        gaps.append(float((logs(now, head) - logs(before, head)).abs().max()))
    assert verify(store, manifest_of(live, found.precision), live, "validation", found) == pytest.approx(
        max(gaps), rel=1e-3
    )
    other = options(seeds=(0, 3)).live(found)
    with pytest.raises(UserError, match="teacher is "):
        verify(store, manifest_of(other, found.precision), other, "validation", found)
