"""The Lambda handler, called as Lambda calls it, and the function that deploy/lambda/build.py packs."""

import base64
import importlib
import json
import shutil
import subprocess
import sys
import zipfile
from importlib.metadata import distribution
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


def installed(wanted: list[str], to: Path, python: str, machine: str) -> None:
    """In pip's place: this environment's own packages, whole, as a wheel holds them."""
    for name in wanted:
        package = name.partition("==")[0]
        for folder in {file.parts[0] for file in distribution(package).files or ()} - {".."}:
            source = Path(str(distribution(package).locate_file(folder)))
            if source.is_dir():
                shutil.copytree(source, to / folder)


def test_the_built_function_answers_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """From the zip, by a Python that sees no other packages: nothing that is needed was left out."""
    monkeypatch.setattr(build, "install", installed)
    build.build(variant(), tmp_path, f"{sys.version_info[0]}.{sys.version_info[1]}", "x86_64")
    first = (tmp_path / "function.zip").read_bytes()
    assert build.pack(tmp_path / "function", tmp_path / "again.zip").read_bytes() == first
    with zipfile.ZipFile(tmp_path / "again.zip") as archive:
        archive.extractall(tmp_path / "task")
    assert not list((tmp_path / "task").rglob("tests")) and (tmp_path / "task" / "numpy").is_dir()
    program = f"""
import json, sys
sys.path.insert(0, {str(tmp_path / "task")!r})
from {MODULE} import handler
strangers = [m.__file__ for m in sys.modules.values() if "site-packages" in (getattr(m, "__file__", None) or "")]
assert not strangers, strangers
print(json.dumps(handler({{"texts": ["where is my order?"], "top": 1}}, None)))
"""
    environment = {"PATH": "/usr/bin:/bin", "LAMBDA_TASK_ROOT": str(tmp_path / "task")}
    command = [sys.executable, "-I", "-S", "-c", program]
    done = subprocess.run(command, env=environment, cwd="/", capture_output=True, text=True, timeout=600, check=False)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["predictions"] == load(variant()).predict(["where is my order?"], top=1)
    assert "of Lambda's 250 MB" in build.sizes(tmp_path / "function", tmp_path / "again.zip")


@pytest.mark.parametrize(("megabytes", "threads"), [(None, 1), ("512", 1), ("1769", 1), ("3600", 2)])
def test_threads_follow_the_memory(monkeypatch: pytest.MonkeyPatch, megabytes: str | None, threads: int) -> None:
    if megabytes is not None:
        monkeypatch.setenv("AWS_LAMBDA_FUNCTION_MEMORY_SIZE", megabytes)
    monkeypatch.setenv("MANGAKD_MODEL", str(variant()))
    monkeypatch.delitem(sys.modules, MODULE, raising=False)
    assert threads == importlib.import_module(MODULE).THREADS


def test_versions_are_those_of_the_export() -> None:
    manifest = {"backend": "onnxruntime", "versions": {"onnxruntime": "1.31.1", "torch": "2.13.0"}}
    assert build.requirements(manifest) == ["numpy", "tokenizers", "onnxruntime==1.31.1"]
