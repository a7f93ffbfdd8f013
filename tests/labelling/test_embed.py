"""`writes=embeddings`: vectors of an encoder in a file that teacher=vectors reads, by parts that a kill does not lose."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from contract.tiny_models import WORDS, config, tokenizer
from prepared import no_bar
from transformers import AutoModel

from mangakd.core.errors import UserError
from mangakd.data.rows import Rows
from mangakd.data.sequence_texts import SequenceTexts
from mangakd.labelling import embed as module
from mangakd.labelling.embed import Embeddings, embed
from mangakd.labelling.encoder import Encoder
from mangakd.labelling.forms.paraphrases import Paraphrases
from mangakd.labelling.label import read_prompts
from mangakd.labelling.label_manifest import read_manifest
from mangakd.labelling.provider import Answer, Embedder
from mangakd.labelling.templates import Template
from mangakd.tasks.embedding.task import Embedding
from mangakd.teachers.vectors import Vectors

ROWS = [
    {
        "anchor": " ".join(WORDS[i : i + 3]),
        "positive": " ".join(WORDS[i + 5 : i + 5 + i % 4 + 1]),
        "negatives": [WORDS[i + 9]],
    }
    for i in range(12)
]
PROMPTS = {"query": "w100 ", "document": ""}


@pytest.fixture(scope="module")
def encoder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("encoder") / "model"
    torch.manual_seed(0)
    AutoModel.from_config(config("bert", layers=1)).save_pretrained(folder)
    tokenizer().save_pretrained(folder)
    return folder


def rows(folder: Path) -> Rows:
    (folder / "pairs.jsonl").write_text("\n".join(map(json.dumps, ROWS)))
    return read_prompts(str(folder / "pairs.jsonl"), {}, Embeddings())


def by_hand(folder: Path, text: str) -> np.ndarray:
    """The mean of the last states, normalised: the default pooling."""
    read = tokenizer()(text, return_tensors="pt")
    with torch.no_grad():
        states = AutoModel.from_pretrained(folder).eval()(**read).last_hidden_state[0]
    vector: np.ndarray = states.mean(0).numpy()
    return vector / np.linalg.norm(vector)


@pytest.mark.parametrize("ending", [".parquet", ".npy"])
def test_vectors_are_read_by_their_teacher(ending: str, encoder: Path, tmp_path: Path) -> None:
    out = tmp_path / f"vectors{ending}"
    read = rows(tmp_path)
    own = Encoder(path=str(encoder), tokens=40)
    assert isinstance(own, Embedder)
    embed(read, own, Embeddings(PROMPTS), out, tmp_path / "cache", no_bar, tmp_path / "pairs.jsonl")
    task = Embedding(prompts={"teacher": PROMPTS})
    teacher = Vectors(path=str(out))
    teacher.check({"train": SequenceTexts(read, task.sequences)})
    places, table = teacher.answers
    texts = {text for row in task.sequences(read) for (text,) in row}
    assert {text for (text,) in places} == texts and table.shape == (len(texts), table.shape[1])
    for text in sorted(texts)[::5]:
        vector = table[places[(text,)]]
        np.testing.assert_allclose(vector / np.linalg.norm(vector), by_hand(encoder, text), atol=1e-5)
    manifest = read_manifest(out)
    assert (
        manifest is not None and manifest["teacher"]["provider"] == "encoder" and manifest["out"]["rows"] == len(texts)
    )
    assert not [*tmp_path.glob("*.parts")]


class Counting:
    """Vectors of length and first letter; fails after `most` calls, as an API that is down."""

    remembers, ledger_entry = False, None

    def __init__(self, most: int = 99) -> None:
        self.calls, self._most = list[int](), most

    @property
    def identity(self) -> Mapping[str, Any]:
        return {"provider": "api", "model": "m"}

    def vectors(self, texts: Sequence[str]) -> np.ndarray:
        if len(self.calls) == self._most:
            raise KeyboardInterrupt
        self.calls.append(len(texts))
        return np.array([[len(text), ord(text[0]), 1.0] for text in texts])


def test_a_killed_command_pays_for_no_part_twice(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "PART", 10)
    read, out = rows(tmp_path), tmp_path / "v.parquet"
    first, second = Counting(most=2), Counting()
    with pytest.raises(KeyboardInterrupt):
        embed(read, first, Embeddings(), out, tmp_path / "cache", no_bar)
    assert not out.exists()
    embed(read, second, Embeddings(), out, tmp_path / "cache", no_bar)
    texts = Embeddings().texts(read)
    assert first.calls == [10, 10] and sum(second.calls) == len(texts) - 20
    table = Vectors(path=str(out)).answers
    assert table.table[table.places[(texts[-1],)]].tolist() == [len(texts[-1]), ord(texts[-1][0]), 1.0]


class Short(Counting):
    def vectors(self, texts: Sequence[str]) -> np.ndarray:
        return super().vectors(texts)[1:]


class NoNumber(Counting):
    def vectors(self, texts: Sequence[str]) -> np.ndarray:
        return super().vectors(texts) * np.nan


@pytest.mark.parametrize("provider", [Short(), NoNumber()])
def test_vectors_that_do_not_belong_to_their_texts_are_refused(provider: Embedder, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="Each text needs one vector of finite numbers"):
        embed(rows(tmp_path), provider, Embeddings(), tmp_path / "v.npy", tmp_path / "cache", no_bar)


def test_files_and_rows_that_hold_no_vectors_are_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"must end with \.parquet or \.npy"):
        embed(rows(tmp_path), Counting(), Embeddings(), tmp_path / "v.jsonl", tmp_path / "cache", no_bar)
    (tmp_path / "b.jsonl").write_text('{"text": "a"}\n{"text": " "}\n')
    with pytest.raises(UserError, match=r"line 2 of data\.path=.* has no text"):
        Embeddings().texts(read_prompts(str(tmp_path / "b.jsonl"), {}, Embeddings()))


def test_an_encoder_says_how_near_a_paraphrase_is(encoder: Path) -> None:
    """score = length · (1 − s) · cosine, with the cosine of the encoder's vectors."""
    own = Encoder(path=str(encoder))
    form = Paraphrases(prompt=Template.of("paraphrases"), best=1, count=1, least=0.0, encoder=own)
    source, text = "w1 w2 w3", "w4 w2 w5"
    (row,) = form.read(Rows({"text": [source], "label": [()]}, [1]), 0, Answer(text, "ended", 1))
    from mangakd.labelling.forms.paraphrases import dice

    wanted = (1 - dice(source, text)) * float(by_hand(encoder, source) @ by_hand(encoder, text))
    assert row["score"] == pytest.approx(wanted, abs=1e-5) and form.settings["encoder"]["model"] == str(encoder)
