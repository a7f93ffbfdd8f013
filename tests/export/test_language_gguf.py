"""GGUF files of tiny Llamas and Qwens: what llama.cpp makes of them, and errors that are planted and must be found."""

import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from chat_samples import blank_tokenizer, chat_tokenizer
from language_folder import save_exportable

from mangakd.core.errors import UserError
from mangakd.export.language import gguf_model, gguf_tokenizer, pre_tokenizer, student, to_gguf
from mangakd.export.language.parity import NEW
from mangakd.export.language.torch_engine import read_engine
from mangakd.export.language.variants import make, open_variant
from mangakd.runtime.language_manifest import read

for package in ("gguf", "xllamacpp"):
    pytest.importorskip(package)

F16 = ["gguf_f16"]


def exported(folder: Path, out: Path, names: list[str]) -> list[Path]:
    return make(student.read(folder), out, names)


@pytest.fixture(scope="module")
def llama(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Its folder; export/ beside it holds merged, gguf_f16 and gguf_q8_0."""
    base = tmp_path_factory.mktemp("llama")
    exported(save_exportable(base / "student"), base / "export", ["gguf_f16", "gguf_q8_0"])
    return base


def test_llama_cpp_reads_and_writes_as_pytorch(llama: Path) -> None:
    manifest = read(llama / "export" / "gguf_f16")
    parity, recipe = manifest.content["parity"], manifest.content["recipe"]
    assert parity["texts"] >= 200 and parity["prompts"] == 20 and parity["largest_gap"] <= parity["within"] == 0.1
    assert recipe["pre"] == "gpt-2" and recipe["tried"]["gpt-2"] == 0
    assert (manifest.engine, manifest.model.name, manifest.context, manifest.chat) == (
        "llama.cpp",
        "model.gguf",
        256,
        True,
    )
    q8 = read(llama / "export" / "gguf_q8_0").content
    assert q8["recipe"]["tensors"]["Q8_0"] == 22 and q8["parity"]["largest_gap"] <= 0.5


def test_log_probabilities_are_those_of_pytorch(llama: Path) -> None:
    """Also of tokens that end in the middle of a character, of which llama.cpp's server says nothing."""
    reference = read_engine(llama / "export" / "merged")
    ids = reference.ids(["naïve 東京 where is my order? \U0001f600"], False)[0]
    with open_variant(llama / "export" / "gguf_f16")[1] as engine:
        own, right = engine.score(ids, 1, 400), reference.score(ids, 1, 400)
        few = engine.score(ids[:6], 1, 5)
    np.testing.assert_allclose(own.given, right.given, atol=0.02)
    assert own.top.shape == right.top.shape == (len(ids) - 1, reference.model.config.vocab_size)
    in_order = np.take_along_axis(right.top_log_probs, right.top.argsort(-1), -1)
    np.testing.assert_allclose(np.take_along_axis(own.top_log_probs, own.top.argsort(-1), -1), in_order, atol=0.05)
    np.testing.assert_array_equal(few.top, own.top[:5, :5])
    np.testing.assert_allclose(few.given, own.given[:5], atol=0.01)


def test_a_variant_is_not_made_again_and_a_killed_one_is(llama: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    out = llama / "export"
    before = {path: path.stat().st_mtime_ns for path in out.rglob("*.gguf")}
    (out / "gguf_f16.partial").mkdir()
    assert [path.name for path in exported(llama / "student", out, F16)] == ["merged", "gguf_f16"]
    assert {path: path.stat().st_mtime_ns for path in out.rglob("*.gguf")} == before
    assert not [*out.glob("*.partial")]

    def kill(*_: Any) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(to_gguf, "quantise", kill)
    with pytest.raises(KeyboardInterrupt):
        exported(llama / "student", out, ["gguf_q6_k"])
    assert not (out / "gguf_q6_k").exists() and not [*out.glob("*.partial")]
    assert read(out / "gguf_f16").variant == "gguf_f16"


@pytest.mark.parametrize("kind", ["qwen2", "mistral"])
def test_other_architectures_and_tokenizers(kind: str, tmp_path: Path) -> None:
    """Qwen2 has biases and halves of heads as transformers has them; the Mistral's tokenizer writes blanks as ▁."""
    own: dict[str, Any] = {
        "qwen2": {"tokenizer": chat_tokenizer("qwen3")},
        "mistral": {"tokenizer": blank_tokenizer("mistral", "prepend"), "sliding_window": None},
    }[kind]
    folder = save_exportable(tmp_path / "student", kind, **own)
    made = exported(folder, tmp_path / "out", F16)
    assert read(made[1]).content["recipe"]["pre"] == ("gpt-2" if kind == "qwen2" else "default")
    assert read(made[1]).content["parity"]["largest_gap"] <= 0.1


def wrong_pre(patch: Callable[..., None]) -> None:
    patch(pre_tokenizer, "find", lambda *_: ("llama-bpe", {}))


def unpermuted(patch: Callable[..., None]) -> None:
    patch(gguf_model, "permute", lambda array, heads: array)


def permuted(patch: Callable[..., None]) -> None:
    row = dataclasses.replace(gguf_model.ARCHITECTURES["qwen2"], neighbours=True)
    patch(gguf_model, "ARCHITECTURES", {**gguf_model.ARCHITECTURES, "qwen2": row})


def tied(patch: Callable[..., None]) -> None:
    """The head is left out of the file, as that of a tied model."""
    own = gguf_model.tensors
    patch(to_gguf, "tensors", lambda model: ((n, a) for n, a in own(model) if n != "output.weight"))


def without_template(patch: Callable[..., None]) -> None:
    own = gguf_tokenizer.add_vocabulary

    def add(writer: Any, *rest: Any) -> None:
        patch(writer, "add_chat_template", lambda template: None)
        own(writer, *rest)

    patch(to_gguf, "add_vocabulary", add)


@pytest.mark.parametrize(
    ("kind", "error", "words"),
    [
        ("llama", wrong_pre, "its tokenizer gives other ids for"),
        ("llama", unpermuted, "it writes another token than the merged folder"),
        ("qwen2", permuted, "it writes another token than the merged folder"),
        ("untied", tied, "it writes another token than the merged folder"),
        ("llama", without_template, "the file lacks the student's chat template"),
    ],
)
def test_planted_errors_are_found(
    kind: str, error: Any, words: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = save_exportable(tmp_path / "student", kind)
    error(monkeypatch.setattr)
    with pytest.raises(UserError, match=f"gguf_f16 is not kept: .*{words}"):
        exported(folder, tmp_path / "out", F16)
    assert [path.name for path in (tmp_path / "out").iterdir() if path.is_dir()] == ["merged"]


def test_an_engine_s_own_template_is_found(llama: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where the file is not looked at, the conversation's tokens are: llama.cpp takes ChatML for a file without a template."""
    folder = save_exportable(tmp_path / "student", tokenizer=chat_tokenizer("llama3"))
    without_template(monkeypatch.setattr)
    monkeypatch.setattr(to_gguf, "check_template", lambda *_: None)
    with pytest.raises(UserError, match=r"gguf_f16 is not kept: it makes the tokens .* of the conversation"):
        exported(folder, tmp_path / "out", F16)


def test_greedy_ends_where_the_student_s_text_ends(llama: Path) -> None:
    """Both lists hold the token that ends a text; without stops both go on."""
    reference = read_engine(llama / "export" / "merged")
    with open_variant(llama / "export" / "gguf_f16")[1] as engine:
        assert len(engine.greedy([5, 6, 7], NEW, False)) == len(reference.greedy([5, 6, 7], NEW, False)) == NEW
        wall, own = engine.seconds([5, 6, 7], 3)
    assert wall > 0 and own > 0
