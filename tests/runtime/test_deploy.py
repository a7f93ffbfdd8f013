"""deploy/: the manifests of Kubernetes against its schemas and our service, and the recipes of containers against pyproject."""

import json
import re
import shlex
import subprocess
import sys
import tomllib
from pathlib import Path
from typing import Any

import pytest
import yaml
from conftest import REPO
from made_variant import variant
from tiny_gguf import describe

from mangakd.runtime import drain, serve

RENDER = REPO / "deploy" / "kubernetes" / "render.py"
RECIPES = {"serve": "Dockerfile", "serve-gguf": "gguf.Dockerfile"}
Manifest = dict[str, Any]


def rendered(folder: Path, *words: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, str(RENDER), str(folder), "--image", "registry.example/student:1", *words]
    return subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)


@pytest.fixture(scope="module")
def manifests() -> dict[str, Manifest]:
    """kind → manifest."""
    name = "true"  # which YAML reads as a bool
    done = rendered(variant(), "--name", name, "--threads", "2", "--patience", "60")
    assert done.returncode == 0, done.stderr
    return {each["kind"]: each for each in yaml.safe_load_all(done.stdout)}


def test_kubernetes_schemas_take_every_manifest(manifests: dict[str, Manifest]) -> None:
    validator = pytest.importorskip("kubernetes_validate")
    assert {*manifests} == {"Deployment", "Service", "HorizontalPodAutoscaler", "PodDisruptionBudget"}
    for manifest in manifests.values():
        validator.validate(manifest, "1.30", strict=True)
        validator.validate(manifest, validator.latest_version(), strict=True)
    broken = json.loads(json.dumps(manifests["Deployment"]))
    broken["spec"]["template"]["spec"]["containers"][0]["readinesProbe"] = {}
    with pytest.raises(Exception, match="readinesProbe"):
        validator.validate(broken, "1.30", strict=True)


def pod(manifests: dict[str, Manifest]) -> tuple[Manifest, Manifest]:
    spec = manifests["Deployment"]["spec"]["template"]["spec"]
    (container,) = spec["containers"]
    return spec, container


def test_names_and_ports_fit_together(manifests: dict[str, Manifest]) -> None:
    _, container = pod(manifests)
    assert {manifest["metadata"]["name"] for manifest in manifests.values()} == {"true"}
    labels = manifests["Deployment"]["spec"]["template"]["metadata"]["labels"].items()
    selectors = [manifests["Service"]["spec"]["selector"]]
    selectors += [manifests[kind]["spec"]["selector"]["matchLabels"] for kind in ("Deployment", "PodDisruptionBudget")]
    assert all(selector.items() <= labels for selector in selectors)
    assert (
        manifests["HorizontalPodAutoscaler"]["spec"]["scaleTargetRef"]["name"]
        == manifests["Deployment"]["metadata"]["name"]
    )
    (port,) = container["ports"]
    assert manifests["Service"]["spec"]["ports"][0]["targetPort"] == port["name"]
    for probe in ("startupProbe", "readinessProbe", "livenessProbe"):
        assert container[probe]["httpGet"] == {"path": "/health", "port": port["name"]}


def test_a_pod_has_time_to_drain_and_a_pod_may_go(manifests: dict[str, Manifest]) -> None:
    spec, container = pod(manifests)
    options = serve.parser().parse_args(["/model", *container["args"]])
    assert (options.threads, options.linger, options.patience) == (2, 5, 60)
    assert spec["terminationGracePeriodSeconds"] == 5 + 60 + drain.GRACE + 10
    assert options.port == container["ports"][0]["containerPort"]  # the container's port is the default
    assert (
        manifests["HorizontalPodAutoscaler"]["spec"]["minReplicas"]
        > manifests["PodDisruptionBudget"]["spec"]["maxUnavailable"]
    )
    assert container["resources"]["requests"]["cpu"] == "2"


def test_the_autoscaler_reads_a_metric_of_both_services(manifests: dict[str, Manifest], tmp_path: Path) -> None:
    pytest.importorskip("fastapi", reason="the service: pip install fastapi uvicorn")
    pytest.importorskip("httpx", reason="the service of language models: pip install httpx")
    from mangakd.runtime import Model, language_manifest
    from mangakd.runtime.language_engine import Engine
    from mangakd.runtime.language_service import LanguageService, LanguageSettings
    from mangakd.runtime.manifest import read
    from mangakd.runtime.service import create_app

    name = manifests["HorizontalPodAutoscaler"]["spec"]["metrics"][0]["pods"]["metric"]["name"]
    language = LanguageService(language_manifest.read(folder(tmp_path)), Engine({}), LanguageSettings())
    encoder = create_app(Model(read(variant()), None, None)).state.service  # type: ignore[arg-type]
    for service in (encoder, language):
        assert f"\n{name} 0\n" in service.metrics()


def folder(tmp_path: Path) -> Path:
    file = tmp_path / "model.gguf"
    file.write_bytes(b"\0" * 3_000_000)
    return describe(tmp_path, file)


def test_memory_follows_the_files_or_the_user(tmp_path: Path) -> None:
    language = folder(tmp_path)

    def memory(*words: str) -> str:
        deployment = next(yaml.safe_load_all(rendered(language, *words).stdout))
        return deployment["spec"]["template"]["spec"]["containers"][0]["resources"]["limits"]["memory"]

    assert memory() == "518Mi"  # 512 + ⌈2 · 3,000,000 / 2²⁰⌉
    assert memory("--memory", "3Gi") == "3Gi"
    merged = rendered(describe(tmp_path, tmp_path / "model.gguf", engine="transformers"), "--memory", "3Gi")
    assert merged.returncode == 1 and "of transformers, which mangakd does not serve" in merged.stderr


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("--name", "My_Student"), "'My_Student': give a name of Kubernetes"),
        (("--replicas", "3", "2"), "--replicas 3 2"),
        (("--linger", "-1"), "seconds from 0 on"),
        (("--patience", "nan"), "seconds from 0 on"),
        (("--memory", "2 GB"), "--memory '2 GB': give a quantity of Kubernetes, such as 2Gi"),
        (("--image", ""), "--image '': give the name of an image"),
    ],
)
def test_render_refuses(words: tuple[str, ...], message: str, tmp_path: Path) -> None:
    done = rendered(folder(tmp_path), *words)
    assert done.returncode == 1 and message in done.stderr and "Traceback" not in done.stderr


@pytest.mark.parametrize(("extra", "file"), RECIPES.items())
def test_a_recipe_installs_the_extra_and_starts_the_command(
    extra: str, file: str, manifests: dict[str, Manifest]
) -> None:
    text = (REPO / "deploy" / "service" / file).read_text(encoding="utf-8")
    steps = dict.fromkeys(re.findall(r"^([A-Z]+) ", text, re.M))
    assert steps.keys() <= {
        "ARG",
        "FROM",
        "RUN",
        "WORKDIR",
        "COPY",
        "USER",
        "ENV",
        "EXPOSE",
        "HEALTHCHECK",
        "ENTRYPOINT",
    }
    project = tomllib.loads((REPO / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    wanted = {re.split(r"[<>=]", each)[0] for each in project["optional-dependencies"][extra]} | {"numpy"}
    pip = shlex.split(re.search(r"pip install --no-cache-dir -c constraints.txt (.*)", text)[1])  # type: ignore[index]
    assert {"onnxruntime" if word == "${BACKEND}" else word for word in pip} == wanted
    for line in re.findall(r"^COPY (?!--chown)(.*)", text, re.M):
        assert all((REPO / source).exists() for source in line.split()[:-1]), line
    entry = json.loads(re.search(r"^ENTRYPOINT (.*)", text, re.M)[1])  # type: ignore[index]
    assert entry[:2] == ["mangakd", "serve"] and serve.parser().parse_args(entry[2:]).host == "0.0.0.0"
    user = re.search(r"^USER (\d+):(\d+)", text, re.M)
    security = pod(manifests)[0]["securityContext"]
    assert user and [int(number) for number in user.groups()] == [security["runAsUser"], security["runAsGroup"]]
    assert "http://127.0.0.1:8000/health" in text and "torch" not in pip
