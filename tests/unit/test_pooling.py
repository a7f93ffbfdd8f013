"""Pooling by hand, and what sentence-transformers' folders say of it."""

import json
from pathlib import Path

import pytest
import torch

from mangakd.core.errors import UserError
from mangakd.models.pooling import Dense, Pooling, VectorHead, of_folder, read_head, save_head

HIDDEN = torch.tensor([[[3.0, 0.0], [1.0, -8.0]]])
OLD = {"word_embedding_dimension": 2, "pooling_mode_mean_tokens": False, "pooling_mode_cls_token": False}


@pytest.mark.parametrize("left", [False, True])
@pytest.mark.parametrize("padding", [100.0, float("nan"), float("inf")])
@pytest.mark.parametrize(
    ("mode", "expected"), [("mean", [2.0, -4.0]), ("cls", [3.0, 0.0]), ("max", [3.0, 0.0]), ("last", [1.0, -8.0])]
)
def test_padding_has_no_part(mode: str, expected: list[float], padding: float, left: bool) -> None:
    states, mask = torch.cat([HIDDEN, torch.full((1, 1, 2), padding)], 1), torch.tensor([[1, 1, 0]])
    if left:
        states, mask = states.roll(1, 1), mask.roll(1, 1)
    states.requires_grad_()
    vector = VectorHead(Pooling(mode, normalize=False))(states, mask)
    assert vector.tolist() == [expected]
    vector.sum().backward()
    assert states.grad is not None and states.grad.isfinite().all() and not states.grad[mask == 0].any()


def test_the_maximum_of_negative_states_is_not_that_of_padding() -> None:
    states, mask = torch.tensor([[[-3.0], [-2.0], [0.0]]]), torch.tensor([[1, 1, 0]])
    assert VectorHead(Pooling("max", normalize=False))(states, mask).tolist() == [[-2.0]]


def test_a_dense_layer_ends_with_its_activation() -> None:
    for activation, expected in (("ReLU", [2.0, 0.0]), ("Tanh", [0.964, -0.9999]), ("Identity", [2.0, -5.0])):
        layer = Dense(2, 2, activation=activation)
        head = VectorHead(Pooling("mean", normalize=False, dense=(layer,)))
        with torch.no_grad():
            head.dense[0].weight.copy_(torch.eye(2))
            head.dense[0].bias.copy_(torch.tensor([0.0, -1.0]))
        assert head(HIDDEN, torch.ones(1, 2))[0].tolist() == pytest.approx(expected, abs=1e-4)


def test_the_digest_has_every_setting_that_changes_a_vector() -> None:
    """A store of the teacher's vectors would else be read for a head that gives other ones."""
    heads = [VectorHead(Pooling(mode, normalize)) for mode in ("mean", "cls") for normalize in (True, False)]
    for activation in ("Tanh", "ReLU"):
        torch.manual_seed(0)
        heads.append(VectorHead(Pooling(dense=(Dense(2, 2, activation=activation),))))
    assert len({head.digest("weights") for head in heads}) == len(heads)


def test_normalised_to_length_one_in_fp32() -> None:
    vector = VectorHead()(torch.tensor([[[3.0, 4.0]]], dtype=torch.bfloat16), torch.tensor([[1]]))
    assert vector.dtype == torch.float32 and vector.tolist() == [pytest.approx([0.6, 0.8])]


def test_a_text_without_tokens_has_no_nan() -> None:
    for mode in ("mean", "cls", "last"):
        assert VectorHead(Pooling(mode))(HIDDEN, torch.zeros(1, 2)).tolist() == [[0.0, 0.0]]


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
        ({**OLD, "pooling_mode_mean_tokens": True}, ("LayerNorm",), "LayerNorm"),
        ({**OLD, "pooling_mode_mean_tokens": True}, ("Dense",), r"2_Dense/ has no model\.safetensors"),
        ({**OLD, "pooling_mode_cls_token": True, "pooling_mode_mean_tokens": True}, (), "several poolings"),
        ({**OLD, "pooling_mode_mean_sqrt_len_tokens": True}, (), "mean_sqrt_len"),
    ],
)
def test_what_would_give_other_embeddings_is_refused(
    tmp_path: Path, settings: dict[str, object], more: tuple[str, ...], words: str
) -> None:
    with pytest.raises(UserError, match=words):
        of_folder(folder(tmp_path, settings, *more))


def test_a_head_is_written_and_read_again(tmp_path: Path) -> None:
    layers = (Dense(2, 3, activation="GELU"), Dense(3, 5, bias=False, activation="Identity"))
    for pooling in (Pooling("last", normalize=False), Pooling("cls", normalize=True, dense=layers)):
        folder = tmp_path / pooling.pooling
        head = VectorHead(pooling)
        save_head(head, 2, folder)
        again, mask = read_head(folder), torch.ones(1, 2)
        assert again.settings.width(2) == (5 if pooling.dense else 2) == again(HIDDEN, mask).shape[1]
        torch.testing.assert_close(again(HIDDEN, mask), head(HIDDEN, mask), rtol=0, atol=0)
        assert again.digest("weights") == head.digest("weights") != head.digest("other")
    with torch.no_grad():
        again.dense[0].weight[0, 0] += 1
    assert again.digest("weights") != head.digest("weights") != VectorHead().digest("weights")


def test_an_activation_of_another_library_is_refused(tmp_path: Path) -> None:
    save_head(VectorHead(Pooling(dense=(Dense(2, 3),))), 2, tmp_path)
    file = tmp_path / "2_Dense" / "config.json"
    file.write_text(file.read_text().replace("activation.Tanh", "activation.Tanhh"))
    with pytest.raises(UserError, match=r"Tanhh' is none of torch\.nn; did you mean Tanh"):
        of_folder(tmp_path)
