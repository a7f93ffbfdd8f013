"""The Lambda handler, called as Lambda calls it, and the function that deploy/lambda/build.py packs."""

import base64
import importlib
import json
import subprocess
import sys
import zipfile
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from made_variant import variant

from mangakd.core.errors import UserError
from mangakd.runtime import load

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "deploy" / "lambda"))
import build

TEXTS = ["where is my order?", "", "東京 🎌"]
MODULE = "mangakd.runtime.aws_lambda"


@pytest.fixture
def module(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.setenv("MANGAKD_MODEL", str(variant()))
    monkeypatch.delitem(sys.modules, MODULE, raising=False)
    return importlib.import_module(MODULE)


def event(body: str | None, method: str = "POST", encoded: bool = False) -> dict[str, Any]:
    """What API Gateway sends in payload format 2.0, cut to what matters."""
    return {
        "version": "2.0", "routeKey": "$default", "rawPath": "/predict", "headers": {"content-type": "application/json"},
        "requestContext": {"http": {"method": method, "path": "/predict"}, "stage": "$default"},
        "body": body, "isBase64Encoded": encoded,
    }  # fmt: skip


def test_invoked_directly(module: ModuleType) -> None:
    assert module.handler({"texts": TEXTS, "top": 1}, None) == {"predictions": load(variant()).predict(TEXTS, top=1)}
    with pytest.raises(UserError, match="texts is missing"):
        module.handler({}, None)


@pytest.mark.parametrize("encoded", [False, True])
def test_through_api_gateway(module: ModuleType, encoded: bool) -> None:
    body = json.dumps({"texts": TEXTS}, ensure_ascii=False)
    sent = base64.b64encode(body.encode()).decode() if encoded else body
    answer = module.handler(event(sent, encoded=encoded), None)
    assert answer["statusCode"] == 200 and answer["headers"] == {"content-type": "application/json"}
    assert json.loads(answer["body"]) == {"predictions": load(variant()).predict(TEXTS)}
    json.dumps(answer)  # Lambda does that


@pytest.mark.parametrize(
    ("asked", "status"),
    [
        (event(None), 400),
        (event("{"), 400),
        (event("%%%", encoded=True), 400),
        (event('{"texts": "a"}'), 422),
        (event("\ud800"), 400),
        (event(" " * 1_000_001), 413),
        (event("", method="GET"), 405),
        ({"requestContext": {}, "body": "{}"}, 405),
    ],
)
def test_wrong_requests(module: ModuleType, asked: dict[str, Any], status: int) -> None:
    answer = module.handler(asked, None)
    assert answer["statusCode"] == status and json.loads(answer["body"])["error"]


def test_the_packed_function_answers_alone(tmp_path: Path) -> None:
    """From the zip, without the repository on the path; the packages of this environment stand for those that pip would add."""
    function = tmp_path / "function"
    (function / "numpy_like" / "tests").mkdir(parents=True)
    (function / "numpy_like" / "tests" / "big.py").write_text("x = 1")
    build.put(variant(), function)
    build.prune(function)
    assert not list(function.rglob("tests")) and not list(function.rglob("__pycache__"))
    build.compile_all(function)
    first = build.pack(function, tmp_path / "a.zip").read_bytes()
    assert build.pack(function, tmp_path / "b.zip").read_bytes() == first
    with zipfile.ZipFile(tmp_path / "a.zip") as archive:
        archive.extractall(tmp_path / "task")
    program = f"""
import json, sys
sys.path.insert(0, {str(tmp_path / "task")!r})
from {MODULE} import handler
import mangakd
assert mangakd.__file__.startswith({str(tmp_path)!r}), mangakd.__file__
assert not {{"torch", "transformers", "fastapi"}} & set(sys.modules)
print(json.dumps(handler({{"texts": ["where is my order?"], "top": 1}}, None)))
"""
    environment = {"PATH": "/usr/bin:/bin", "LAMBDA_TASK_ROOT": str(tmp_path / "task")}
    done = subprocess.run(
        [sys.executable, "-c", program],
        env=environment,
        cwd="/",
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["predictions"] == load(variant()).predict(["where is my order?"], top=1)
    assert "of Lambda's 250 MB" in build.sizes(function, tmp_path / "a.zip")


def test_versions_are_those_of_the_export() -> None:
    manifest = {"backend": "onnxruntime", "versions": {"onnxruntime": "1.31.1", "torch": "2.13.0"}}
    assert build.requirements(manifest) == ["numpy", "tokenizers", "onnxruntime==1.31.1"]
