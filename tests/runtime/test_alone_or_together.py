"""A served answer depends on its text alone: alone or in company, from the library, the Lambda handler and the service."""

import importlib
import json
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from made_variant import dependent, variant, write_manifest

from mangakd.runtime import load

TEXTS = [f"{word} {'so ' * i}number {i}" for i in range(6) for word in ("order", "refund", "東京")]
OLD: dict[str, Any] = {"variant": "onnx_int8"}  # as it was exported before there was the key


def probabilities(answers: list[dict[str, Any]]) -> list[dict[str, float]]:
    return [answer["probabilities"] for answer in answers]


@pytest.mark.parametrize("manifest", [{"rows_independent": False}, OLD])
def test_the_library_answers_alone_as_in_company(tmp_path: Path, manifest: dict[str, Any]) -> None:
    student = load(dependent(tmp_path, **manifest), threads=1)
    alone = np.concatenate([student.outputs([text]) for text in TEXTS])
    for batch_size in (1, 7, 32):
        np.testing.assert_array_equal(student.outputs(TEXTS, batch_size), alone)


def test_it_is_the_manifest_that_holds_it(tmp_path: Path) -> None:
    """The same model in a folder that claims independent rows moves its answers: the tests here can fail."""
    student = load(dependent(tmp_path, rows_independent=True), threads=1)
    alone = np.concatenate([student.outputs([text]) for text in TEXTS])
    assert np.abs(student.outputs(TEXTS, 32) - alone).max() > 1e-3


@pytest.mark.parametrize(
    ("manifest", "independent"),
    [(OLD, False), ({**OLD, "rows_independent": True}, True), ({"variant": "onnx_int8_static"}, True), ({}, True),
     ({"variant": "onnx_int8", "backend": "openvino"}, True)],
)  # fmt: skip
def test_folders_of_before_say_it_by_their_name(tmp_path: Path, manifest: dict[str, Any], independent: bool) -> None:
    from mangakd.runtime.manifest import read

    folder = tmp_path / "variant"
    folder.mkdir()
    for name in ("model.onnx", "tokenizer.json"):
        (folder / name).touch()
    write_manifest(folder, **manifest)
    assert read(folder).rows_independent is independent


def test_batches_stay_batches_where_rows_are_independent(monkeypatch: pytest.MonkeyPatch) -> None:
    student, sizes = load(variant(), threads=1), list[int]()
    run = student._run
    monkeypatch.setattr(student, "_run", lambda arrays: sizes.append(len(arrays["input_ids"])) or run(arrays))
    student.outputs(TEXTS, 9)
    assert sizes == [9, 9]


def test_the_lambda_handler_answers_alone_as_in_company(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MANGAKD_MODEL", str(dependent(tmp_path, rows_independent=False)))
    monkeypatch.delitem(sys.modules, "mangakd.runtime.aws_lambda", raising=False)
    handler = importlib.import_module("mangakd.runtime.aws_lambda").handler
    alone = [handler({"texts": [text]})["predictions"][0] for text in TEXTS]
    assert probabilities(handler({"texts": TEXTS})["predictions"]) == probabilities(alone)


def test_the_service_answers_alone_as_in_company(tmp_path: Path) -> None:
    httpx = pytest.importorskip("httpx", reason="asks the service: pip install httpx")
    pytest.importorskip("uvicorn", reason="the service: pip install fastapi uvicorn")
    sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "benchmarks"))
    from serving_client import served

    folder = dependent(tmp_path, rows_independent=False)
    with served(folder, tmp_path / "log", "--linger", "0") as running, httpx.Client(base_url=running.url) as client:

        def ask(texts: list[str]) -> list[dict[str, float]]:
            return probabilities(client.post("/predict", content=json.dumps({"texts": texts})).json()["predictions"])

        alone = [ask([text])[0] for text in TEXTS]
        assert ask(TEXTS) == alone
        with ThreadPoolExecutor(8) as pool:
            assert [row for rows in pool.map(lambda text: ask([text]), TEXTS) for row in rows] == alone
