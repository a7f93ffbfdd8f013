"""Pooling by hand, and what sentence-transformers' folders say of it."""

import json
from pathlib import Path

import pytest
import torch

from mangakd.core.errors import UserError
from mangakd.export.pooling import Pooling, of_folder

HIDDEN = torch.tensor([[[3.0, 0.0], [1.0, -8.0], [100.0, 100.0]]])
MASK = torch.tensor([[1, 1, 0]])
OLD = {"word_embedding_dimension": 2, "pooling_mode_mean_tokens": False, "pooling_mode_cls_token": False}


@pytest.mark.parametrize(("mode", "expected"), [("mean", [2.0, -4.0]), ("cls", [3.0, 0.0]), ("max", [3.0, 0.0])])
def test_padding_has_no_part(mode: str, expected: list[float]) -> None:
    assert Pooling(mode, normalize=False)(HIDDEN, MASK).tolist() == [expected]


def test_normalised_to_length_one() -> None:
    assert Pooling()(torch.tensor([[[3.0, 4.0]]]), torch.tensor([[1]])).tolist() == [pytest.approx([0.6, 0.8])]


def folder(path: Path, settings: dict[str, object], *more: str) -> Path:
    names = ("Transformer", "Pooling", *more)
    modules = [{"idx": i, "path": f"{i}_{name}" if i else "", "type": f"a.{name}"} for i, name in enumerate(names)]
    (path / "modules.json").write_text(json.dumps(modules))
    (path / "1_Pooling").mkdir()
    (path / "1_Pooling" / "config.json").write_text(json.dumps(settings))
    return path


def test_the_folder_says_how(tmp_path: Path) -> None:
    assert of_folder(tmp_path) == Pooling("mean", normalize=True)
    assert of_folder(folder(tmp_path, {**OLD, "pooling_mode_cls_token": True})) == Pooling("cls", normalize=False)


def test_newer_folders_have_one_mode(tmp_path: Path) -> None:
    assert of_folder(folder(tmp_path, {"pooling_mode": "max"}, "Normalize")) == Pooling("max", normalize=True)


@pytest.mark.parametrize(
    ("settings", "more", "words"),
    [
        ({**OLD, "pooling_mode_mean_tokens": True}, ("Dense",), "Dense"),
        ({**OLD, "pooling_mode_cls_token": True, "pooling_mode_mean_tokens": True}, (), "several poolings"),
        ({**OLD, "pooling_mode_mean_sqrt_len_tokens": True}, (), "mean_sqrt_len"),
    ],
)
def test_what_would_give_other_embeddings_is_refused(
    tmp_path: Path, settings: dict[str, object], more: tuple[str, ...], words: str
) -> None:
    with pytest.raises(UserError, match=words):
        of_folder(folder(tmp_path, settings, *more))
