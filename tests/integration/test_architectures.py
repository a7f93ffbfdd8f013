"""The architectures that people bring, from preflight to an answer of the exported student.

What an architecture cannot do is refused by name.

Every architecture does each stage once: preflight, one epoch of distillation with losses on logits, hidden states and attention,
the student's folder, one exported variant, and the runtime, which must answer as the folder does.
"""

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from architectures import LABELS, LENGTH, TEXTS, save
from conftest import checked
from omegaconf import DictConfig
from transformers import AutoModelForSequenceClassification, AutoTokenizer

from mangakd.core.errors import UserError
from mangakd.core.spec import Head
from mangakd.export.variants import make
from mangakd.models import load
from mangakd.runtime.model import load as served
from mangakd.students.build import layers_config

Compose = Callable[..., DictConfig]
LAYERS = ["student.layers=[1,3]"]
ITSELF = ["student.layers=null", "student.path={teacher}"]
ALL = ["losses=[hard_label,output,hidden,attention]", "losses.attention.compare=kl"]
LOGITS = ["losses=[hard_label,output]"]
FITTED = ["teacher.fit.mode=always", "teacher.fit.epochs=1"]
# name: (variant, overrides)
TABLE: dict[str, tuple[str, list[str]]] = {
    "bert": ("onnx_fp32", [*LAYERS, *ALL, "losses.attention.compare=scores"]),
    "distilbert": ("onnx_fp32", [*LAYERS, *ALL]),
    "roberta": ("openvino_fp32", [*LAYERS, *ALL]),
    "xlm-r": ("onnx_fp32", [*LAYERS, *ALL]),
    "electra": ("openvino_fp32", [*LAYERS, *ALL]),
    "albert": ("onnx_fp32", [*ITSELF, *ALL]),
    "deberta-v2": ("onnx_fp32", [*LAYERS, *ALL]),
    "deberta-v3": ("openvino_fp32", [*LAYERS, *ALL]),
    "mpnet": ("openvino_fp32", [*LAYERS, *ALL]),
    "modernbert": ("openvino_fp32", [*LAYERS, *ALL]),
    "gpt2": ("openvino_fp32", [*LAYERS, *ALL, *FITTED]),
    "llama": ("openvino_fp32", [*LAYERS, *ALL, *FITTED]),
    "bart": ("openvino_fp32", [*ITSELF, *LOGITS]),
}
PADLESS = ("gpt2", "llama")  # their tokenizers alone have a padding token, as with most decoders
# (architecture, overrides, words of the message)
REFUSED: list[tuple[str, list[str], list[str]]] = [
    ("albert", LAYERS, ["albert shares its layers", "student.path"]),
    ("bart", LAYERS, ["bart has an encoder and a decoder", "student.path"]),
    ("bart", [*ITSELF, *ALL], ["losses.hidden reads layers", "losses.attention reads layers", "an encoder and a decoder"]),
    ("modernbert", ["student.layers=[2,4]"], ["student.layers=[2, 4]", "works"]),
    ("deberta-v3", [*LAYERS, "losses=[attention]"], ["losses.attention reads queries", "losses.attention.compare=kl"]),
    ("mpnet", [*LAYERS, "losses=[relation]"], ["losses.relation reads queries", "Leave relation out"]),
    ("albert", [*ITSELF, "losses=[attention]"], ["losses.attention reads queries", "albert"]),
    ("gpt2", [*LAYERS, f"data.max_length={LENGTH + 1}"], [f"positions for {LENGTH} tokens"]),
    ("bart", [*ITSELF, *LOGITS, f"data.max_length={LENGTH + 3}"], [f"positions for {LENGTH + 2} tokens"]),
]  # fmt: skip


@pytest.fixture(scope="session")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    file = tmp_path_factory.mktemp("data") / "questions.jsonl"
    file.write_text("".join(json.dumps({"text": text, "label": label}) + "\n" for text, label in TEXTS))
    return file


@pytest.fixture(scope="session")
def brought(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    root = tmp_path_factory.mktemp("architectures")

    def folder(name: str) -> Path:
        path = root / name
        if not path.is_dir():
            save(name, path)
            if name in PADLESS:
                change(path, pad_token_id=None)
        return path

    return folder


def change(folder: Path, **entries: object) -> None:
    file = folder / "config.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | entries))


def overrides(teacher: Path, data: Path, more: list[str]) -> list[str]:
    return [
        "data=files", f"data.path={data}", "data.max_length=64", f"teacher.path={teacher}", "hardware=cpu",
        "hardware.batch_size=32", "trainer.max_epochs=1", "baseline=false", "logger=[]", "stages=output_only",
        *(text.format(teacher=teacher) for text in more),
    ]  # fmt: skip


@pytest.mark.parametrize("name", TABLE)
def test_from_preflight_to_an_answer(
    name: str, data: Path, brought: Callable[[str], Path], compose: Compose, run_here: Callable[[DictConfig, Path], None],
    tmp_path: Path,
) -> None:  # fmt: skip
    variant, more = TABLE[name]
    run_here(compose(*overrides(brought(name), data, more)), tmp_path / "run")

    student = tmp_path / "run" / "student"
    [exported] = make(student, tmp_path / "export", [variant], max_length=LENGTH)
    # Padding of the short texts reaches beyond every window of ModernBERT's local layers.
    texts = [
        "Yes",
        "when will my blue teapot arrive",
        "give me my money back for the desk lamp " * 9,
        "order 12345, please?",
    ]
    answers = served(exported, 1).outputs(texts, batch_size=len(texts))

    model, tokenizer = (
        AutoModelForSequenceClassification.from_pretrained(student),
        AutoTokenizer.from_pretrained(student),
    )
    assert tuple(model.config.id2label.values()) == LABELS
    with torch.no_grad():
        alone = [
            model(
                **tokenizer(text, truncation=True, max_length=LENGTH, return_tensors="pt", return_token_type_ids=False)
            ).logits
            for text in texts
        ]
    expected = torch.cat(alone).numpy()
    np.testing.assert_allclose(answers, expected, rtol=0, atol=1e-4 * np.abs(expected).max())
    assert np.ptp(expected, axis=0).max() > 1e-2, "equal answers prove nothing"


@pytest.mark.parametrize(("name", "more", "words"), REFUSED)
def test_what_an_architecture_cannot_do_is_refused(
    name: str,
    more: list[str],
    words: list[str],
    data: Path,
    brought: Callable[[str], Path],
    compose: Compose,
    tmp_path: Path,
) -> None:
    with pytest.raises(UserError) as raised:
        checked(compose(*overrides(brought(name), data, more)), tmp_path / "run")
    assert all(word in str(raised.value) for word in words), raised.value


def test_a_modernbert_of_one_kind_of_attention_is_refused_where_it_cannot_be_loaded(
    data: Path, brought: Callable[[str], Path], compose: Compose, tmp_path: Path
) -> None:
    """transformers 5.5 cannot load it, 5.24 can."""
    folder = brought("modernbert")
    try:
        checked(compose(*overrides(folder, data, ["student.layers=[1,4]"])), tmp_path / "run")
    except UserError as error:
        assert all(word in str(error) for word in ("full_attention alone", "cannot load", "student.layers=[1,3] works"))
        return
    student = AutoModelForSequenceClassification.from_config(layers_config(load.load_config(str(folder)), [1, 4]))
    student.save_pretrained(tmp_path / "student")
    assert AutoModelForSequenceClassification.from_pretrained(tmp_path / "student").config.num_hidden_layers == 2


def test_a_decoder_reads_its_tokenizers_padding(brought: Callable[[str], Path]) -> None:
    """Another padding token in config.json made it read padding, without a word."""
    folder = str(brought("llama"))
    tokenizer = load.load_tokenizer(folder)
    model = load.trained_classifier(folder, "teacher.path")
    assert model is not None
    model.config.pad_token_id = 3
    taught = load.encoder(model.eval(), Head.of_labels(LABELS), "teacher", tokenizer)
    rows = tokenizer(["order", "give me my money back"], padding=True, padding_side="right", return_tensors="pt")
    alone = tokenizer(["order"], return_tensors="pt")
    with torch.no_grad():
        torch.testing.assert_close(taught(rows).logits[:1], taught(alone).logits, rtol=1e-4, atol=1e-4)
