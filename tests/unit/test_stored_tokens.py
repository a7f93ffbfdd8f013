"""A store of a language model's answers: each kind gives back what a dense computation in float64 says, for every batch."""

from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from tiny_language import VOCAB, Teachers, context
from torch import Tensor

from mangakd.core.errors import UserError
from mangakd.core.outputs import Batch
from mangakd.core.requires import Need
from mangakd.core.token_logits import Draws, FromStates, TopK
from mangakd.data.loader import EvalBatches
from mangakd.losses import chunked
from mangakd.store.manifest import Manifest
from mangakd.store.writer import StoreWriter
from mangakd.teachers import fill as module
from mangakd.teachers.cached import Cached, CachedTeacher
from mangakd.teachers.lm_head_file import head_file
from mangakd.teachers.local import Local, LocalTeacher
from mangakd.teachers.options import TeacherContext
from mangakd.teachers.verify import verify

CPU, K = torch.device("cpu"), 6
KINDS: dict[str, dict[str, Any]] = {
    "topk": {"k": K, "temperature": 2.0}, "draws": {"draws": 20, "temperature": 2.0}, "states": {}
}  # fmt: skip
each_kind = pytest.mark.parametrize("kind", KINDS)


def options(kind: str | None, store: Path | None = None, **more: Any) -> Cached:
    own = KINDS[kind] if kind else {}
    return Cached(path="lm", stored_as=kind, store=None if store is None else str(store), **{**own, **more})


def answer(provider: Any, batch: Batch) -> Any:
    return provider.prepare(CPU, Need(answer=True))(batch).tokens


def log_p(given: TeacherContext, batch: Batch, t: float = 1.0) -> Tensor:
    """(P, V) in float64 from the model's own logits, of which the head's soft cap is a part."""
    model, targets = Teachers()(Local(path="lm").models[0]).model.double(), batch["teacher"]["targets"]
    raw = model(input_ids=batch["teacher"]["input_ids"], attention_mask=batch["teacher"]["attention_mask"])
    return torch.log_softmax(raw.logits[:, :-1][targets[:, 1:]].double() / t, -1).detach()


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in sorted(folder.iterdir()) if path.name != "writer.lock"}


@pytest.fixture(autouse=True)
def small_chunks(monkeypatch: pytest.MonkeyPatch) -> None:
    """Several chunks in a batch."""
    monkeypatch.setattr(chunked, "LEAST", 3)
    monkeypatch.setattr(chunked, "MOST", 3)


# --- what comes back -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", ["float16", "float32"])
def test_topk_holds_the_best_tokens_and_the_exact_mass_of_all_others(dtype: str, tmp_path: Path) -> None:
    given = context(tmp_path, Teachers())
    provider = options("topk", stored_dtype=dtype).provider(given)
    batch = given.splits["train"].collate([7, 2, 19])  # other neighbours than in the fill
    stored, exact = answer(provider, batch), log_p(given, batch, 2.0)
    assert isinstance(stored, TopK) and stored.temperature == 2.0 and stored.ids.dtype == torch.int64
    best, ids = exact.topk(K)
    assert torch.equal(stored.ids, ids)
    near = {"rtol": 0, "atol": 2e-3 if dtype == "float16" else 1e-5}
    torch.testing.assert_close(stored.log_probs.double(), best, **near)
    torch.testing.assert_close(stored.tail.double(), exact.scatter(1, ids, -torch.inf).logsumexp(-1), **near)
    whole = torch.cat([stored.log_probs, stored.tail[:, None]], 1).double().exp().sum(-1)
    torch.testing.assert_close(
        whole, torch.ones_like(whole), rtol=0, atol=1e-6
    )  # so that each divergence is a true one


@pytest.mark.parametrize("kind", ["topk", "draws"])
def test_what_the_teachers_own_scores_need_is_exact(kind: str, tmp_path: Path) -> None:
    """At T = 1, whatever the store's temperature."""
    given = context(tmp_path, Teachers())
    batch = given.splits["train"].collate([7, 2, 19])
    facts, exact = answer(options(kind).provider(given), batch).facts, log_p(given, batch)
    best_log_prob, best = exact.max(-1)
    assert torch.equal(facts.best, best)
    torch.testing.assert_close(facts.best_log_prob.double(), best_log_prob, rtol=0, atol=1e-5)
    torch.testing.assert_close(facts.target.double(), exact.gather(1, batch["next"][:, None])[:, 0], rtol=0, atol=1e-5)


def test_draws_have_the_teachers_frequencies(tmp_path: Path) -> None:
    given = context(tmp_path, Teachers())
    batch = given.splits["train"].collate(range(4))
    stored, exact = answer(options("draws", draws=20_000).provider(given), batch), log_p(given, batch, 2.0).exp()
    assert isinstance(stored, Draws) and stored.temperature == 2.0
    counts = torch.zeros_like(exact).scatter_add_(1, stored.ids, torch.ones_like(stored.ids, dtype=exact.dtype))
    expected = 20_000 * exact
    common = expected > 5
    chi = (((counts - expected) ** 2 / expected.clamp_min(1e-9)) * common).sum(-1) / common.sum(-1)
    assert chi.min() > 0.3 and chi.max() < 2.2  # 1 on average; its spread over n tokens is √(2 / n)
    first, second = stored.ids[0], stored.ids[1]
    assert not torch.equal(first, second)


@pytest.mark.parametrize(("dtype", "atol"), [("float16", 2e-3), ("float32", 1e-6)])
def test_states_give_the_live_answer_at_every_temperature(dtype: str, atol: float, tmp_path: Path) -> None:
    given = context(tmp_path, Teachers())
    provider = options("states", stored_dtype=dtype).provider(given)
    batch = given.splits["train"].collate([7, 2, 19])
    stored, live = answer(provider, batch), answer(Local(path="lm").provider(given), batch)
    assert isinstance(stored, FromStates) and stored.head.soft_cap == live.head.soft_cap == 3.0
    torch.testing.assert_close(stored.states, live.states, rtol=atol, atol=atol)
    assert torch.equal(stored.head.weight, live.head.weight) and not stored.head.weight.requires_grad
    for t in (1.0, 3.0):
        now = torch.log_softmax(stored.head.logits(stored.states) / t, -1).double()
        torch.testing.assert_close(now, log_p(given, batch, t), rtol=0, atol=10 * atol)


@each_kind
def test_a_sequence_has_its_answer_in_every_batch(kind: str, tmp_path: Path) -> None:
    given = context(tmp_path, Teachers())
    provider, split = options(kind).provider(given), given.splits["train"]
    counts = split.units["targets"]
    whole = answer(provider, split.collate([3, 11, 5]))
    alone = answer(provider, split.collate([11]))
    rows = slice(int(counts[3]), int(counts[3] + counts[11]))
    for name, value in vars(whole[rows]).items():
        if isinstance(value, Tensor):
            assert torch.equal(value, getattr(alone, name))


def test_the_head_of_states_is_that_of_the_precision(tmp_path: Path) -> None:
    given = context(tmp_path, Teachers())
    given.precision = "bf16-mixed"
    stored = answer(options("states").provider(given), given.splits["train"].collate([0]))
    assert stored.head.weight.dtype == stored.head.dtype == torch.bfloat16


# --- filling ---------------------------------------------------------------------------------------------------------


@each_kind
def test_filled_once_and_the_teacher_is_not_asked_again(kind: str, tmp_path: Path) -> None:
    load = Teachers()
    given = context(tmp_path, load)
    options(kind).provider(given)
    asked = load.forwards
    assert asked == sum(-(-len(split) // 4) for split in given.splits.values())
    answer(options(kind).provider(given), given.splits["validation"].collate([0]))
    assert load.forwards == asked


class Killed(BaseException):
    """Stands for SIGKILL: nothing catches it."""


@each_kind
def test_a_killed_fill_goes_on_and_ends_equal(kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "StoreWriter", partial(StoreWriter, shard_rows=8))
    load = Teachers()
    given = context(tmp_path, load)
    options(kind, tmp_path / "whole").provider(given)
    asked, ask = load.forwards, LocalTeacher.__call__

    def die(self: LocalTeacher, batch: Batch) -> Any:
        if load.forwards == asked + 3:  # one shard is two batches of 4
            raise Killed
        return ask(self, batch)

    with monkeypatch.context() as patch, pytest.raises(Killed):
        patch.setattr(LocalTeacher, "__call__", die)
        options(kind, tmp_path / "torn").provider(given)
    assert sum(name.startswith("shard") for name in contents(tmp_path / "torn")) == 1
    options(kind, tmp_path / "torn").provider(given)
    assert load.forwards == 2 * asked + 1
    assert contents(tmp_path / "torn") == contents(tmp_path / "whole")


def test_shards_are_cut_by_bytes_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("mangakd.store.writer.SHARD_BYTES", 40 * 2 * 16)  # 40 states
    given = context(tmp_path, Teachers())
    provider = options("states", tmp_path / "store").provider(given)
    sizes = [path.stat().st_size for path in (tmp_path / "store").glob("shard-*")]
    assert len(sizes) > 3 and max(sizes) < 2 * 40 * 2 * 16
    for batch in EvalBatches(given.splits["train"], 4):
        assert len(answer(provider, batch)) == len(batch["next"])


def test_bytes_are_told_before_the_fill(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    given = context(tmp_path, Teachers())
    with caplog.at_level("INFO"):
        options("topk").provider(given)
    tokens = int(given.splits["train"].units["targets"].sum())
    each = K * (2 + 2) + 4 + 10  # ids, log p, the mass of all others; for scores two log p and an id
    size = (tokens * each + 30 * 12) / 1000
    assert f"of train: {tokens} target tokens × {each} bytes, with an index {size:.1f} kB" in caplog.text


@each_kind
def test_verify_compares_with_the_live_teacher(kind: str, tmp_path: Path) -> None:
    given = context(tmp_path, Teachers())
    own = options(kind, tmp_path / "store")
    own.provider(given)
    live = own.live(given)
    manifest = own.manifest(live, given)
    assert verify(tmp_path / "store", manifest, live, "train", given) < 1e-3
    with torch.no_grad():
        next(live.encoders[0].parameters()).mul_(1.1)  # behind the provider's back: its fingerprint is the old one
    assert verify(tmp_path / "store", manifest, live, "train", given) > 3e-3


# --- refusing --------------------------------------------------------------------------------------------------------


def test_another_kind_size_or_temperature_is_another_store(tmp_path: Path) -> None:
    given = context(tmp_path, Teachers())
    others = [{"k": K + 1}, {"temperature": 1.0}, {"stored_dtype": "float32"}]
    providers = [options(kind).provider(given) for kind in KINDS] + [
        options("topk", **other).provider(given) for other in others
    ]
    assert len(list((tmp_path / "stores").iterdir())) == len({each.fingerprint for each in providers}) == 6
    options("states", temperature=3.0).provider(given)  # no part of states
    assert len(list((tmp_path / "stores").iterdir())) == 6


@pytest.mark.parametrize(
    ("change", "field"),
    [({"k": K + 1}, "size"), ({"temperature": 1.0}, "temperature"), ({"stored_as": "draws"}, "kind")],
)
def test_a_named_store_of_something_else_is_refused(change: dict[str, Any], field: str, tmp_path: Path) -> None:
    given = context(tmp_path, Teachers())
    options("topk", tmp_path / "store").provider(given)
    with pytest.raises(UserError, match=rf"{field} is .* in the store.*teacher\.store"):
        Cached(
            **{"path": "lm", "stored_as": "topk", "store": str(tmp_path / "store"), **KINDS["topk"], **change}
        ).provider(given)
    other = options("topk", tmp_path / "store", k=K + 1, allow_mismatch=["size"]).provider(given)
    assert isinstance(other, CachedTeacher)
    assert answer(other, given.splits["train"].collate([0])).ids.shape[1] == K  # as stored


def test_a_lost_or_damaged_head_is_written_again(tmp_path: Path) -> None:
    given = context(tmp_path, Teachers())
    own = options("states", tmp_path / "store")
    provider = own.provider(given)
    batch = given.splits["train"].collate([0])
    path = head_file(tmp_path / "store")
    assert path is not None
    path.write_bytes(path.read_bytes()[:-1] + b"\7")
    with pytest.raises(UserError, match=r"no undamaged lm_head-\*\.safetensors.*mangakd cache-teacher"):
        answer(provider, batch)
    assert len(answer(own.provider(given), batch)) == len(batch["next"]) and head_file(tmp_path / "store") == path


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"stored_as": "top_k"}, r"teacher\.stored_as=top_k; known: topk, draws, states.*did you mean topk"),
        ({"stored_dtype": "bfloat16"}, r"teacher\.stored_dtype=bfloat16; known: float32, float16"),
        ({"k": 0}, r"teacher\.k=0 must be a whole number above 0"),
        ({"draws": 1.5}, r"teacher\.draws=1\.5 must be"),
        ({"k": VOCAB}, rf"teacher\.k={VOCAB} must be less than the {VOCAB} tokens.*teacher\.stored_as=states"),
        ({"temperature": {"start": 4}}, r"stored_as=topk holds the probabilities of one temperature.*stored_as=states"),
        ({"temperature": 0}, r"teacher\.temperature=0.*number above 0"),
    ],
)
def test_options_that_cannot_be(change: dict[str, Any], words: str, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=words):
        Cached(**{"path": "lm", **change}).provider(context(tmp_path, Teachers()))


def test_a_store_of_tokens_says_what_it_holds(tmp_path: Path) -> None:
    given = context(tmp_path, Teachers())
    Cached(path="lm", store=str(tmp_path / "store"), k=K).provider(given)
    manifest = Manifest.load(tmp_path / "store")
    assert (manifest.kind, manifest.size, manifest.temperature, manifest.dtype) == ("topk", K, 1.0, "float16")
    assert manifest.head.kind == "tokens" and manifest.head.outputs == VOCAB


def test_logits_that_are_no_numbers_are_refused(tmp_path: Path) -> None:
    given = context(tmp_path, Teachers())
    live = options("topk").live(given)
    with torch.no_grad():
        live.encoders[0].model.get_input_embeddings().weight[int(given.splits["train"].teacher[0][1])] = np.nan
    own = options("topk")
    with pytest.raises(UserError, match=r"NaN or inf as float16 for \d+ of 30 examples"):
        module.fill(tmp_path / "store", own.manifest(live, given), live, given)


@pytest.mark.parametrize(("k", "much"), [(1, True), (VOCAB - 1, False)])
def test_a_store_says_where_the_other_tokens_have_much(
    k: int, much: bool, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level("WARNING"):
        Cached(path="lm", store=str(tmp_path / "store"), k=k).provider(context(tmp_path, Teachers()))
    assert ("and all others have" in caplog.text) == much
