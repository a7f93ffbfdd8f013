"""Exported encoder–decoders write what PyTorch writes, for T5, BART and Marian. Needs onnx and openvino."""

import json
from dataclasses import replace
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import pytest
import torch
from tiny_seq2seq import save as save_random
from transformers import AutoModelForSeq2SeqLM, AutoTokenizer
from writers import ARCHITECTURES, MAX_LENGTH, NEW, ODD, PAIRS, SOURCES, torch_writes, writer

from mangakd import runtime
from mangakd.core.errors import UserError
from mangakd.export import seq2seq
from mangakd.export.data import Data, Split
from mangakd.export.manifest import read
from mangakd.export.run import Options, export
from mangakd.export.seq2seq import Writing
from mangakd.export.student import read as read_student
from mangakd.export.variants import VARIANTS, make
from mangakd.runtime.decoding import BLANK
from mangakd.runtime.turns import Turns

for package in ("onnx", "onnxscript", "onnxruntime", "openvino", "openvino_tokenizers", "nncf"):
    pytest.importorskip(package)

_ROOT = TemporaryDirectory(prefix="mangakd-writers-")  # goes with the process
PRECISE, SMALL = (
    "onnx_fp32",
    ("onnx_int8", "onnx_int8_weights", "openvino_fp16", "openvino_int8_weights", "openvino_int8"),
)
TURNS = Turns(" | ", "rewrite: {turns}")


@cache
def student(kind: str) -> Path:
    return writer(Path(_ROOT.name) / kind / "student", kind)


@cache
def variant(kind: str, name: str, **more: object) -> Path:
    out = Path(_ROOT.name) / kind / "export"
    return make(student(kind), out, [name], SOURCES[:40], MAX_LENGTH, writing=Writing(NEW, TURNS))[0]


@cache
def expected(kind: str, count: int) -> list[str]:
    return torch_writes(student(kind), SOURCES[:count] + ODD)


@pytest.mark.parametrize(("kind", "count"), [("t5", 494), ("bart", 60), ("marian", 60)])
def test_fp32_writes_what_pytorch_writes(kind: str, count: int) -> None:
    """Of T5 500 texts, in batches and alone; single texts that PyTorch itself read alone."""
    texts, wanted = SOURCES[:count] + ODD, expected(kind, count)
    assert len(set(wanted)) > count / 2 and sum(a == b for a, (_, b) in zip(wanted, PAIRS, strict=False)) > 0.9 * count
    model = runtime.load(variant(kind, PRECISE), threads=1)
    assert model.rewrite(texts) == wanted
    assert model.rewrite(texts[-40:], 1) == wanted[-40:]
    assert read(variant(kind, PRECISE)).tolerance < 1e-4


def test_openvino_writes_what_pytorch_writes() -> None:
    texts, wanted = SOURCES[:20] + ODD, expected("t5", 494)
    model = runtime.load(variant("t5", "openvino_fp32"), threads=1)
    assert model.rewrite(texts) == model.rewrite(texts, 1) == wanted[:20] + wanted[-len(ODD) :]


@pytest.mark.parametrize("name", SMALL)
def test_small_variants_write_nearly_always_the_same(name: str) -> None:
    texts, wanted = SOURCES[:60], expected("t5", 494)[:60]
    model = runtime.load(variant("t5", name), threads=1)
    written = model.rewrite(texts, 7)
    assert np.mean([a == b for a, b in zip(written, wanted, strict=True)]) >= (0.98 if name == "openvino_fp16" else 0.9)
    assert model.rewrite(texts[:20], 1) == written[:20], "alone as in a batch"
    size = sum(file.stat().st_size for file in variant("t5", name).glob("*coder.*"))
    assert size < 0.75 * sum(file.stat().st_size for file in variant("t5", PRECISE).glob("*coder.*"))
