"""deploy/monitoring: every expression is PromQL, and every metric and label in it is on the page of a service with a rollout.

promtool and Grafana are not at hand where the tests run: the parser is the Rust port of Prometheus's own.
"""

import asyncio
import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

try:
    import fastapi  # noqa: F401
    import httpx
    import promql_parser as promql
    import yaml
except ImportError as missing:
    pytest.skip(f"pip install fastapi uvicorn httpx pyyaml promql-parser ({missing})", allow_module_level=True)

from made_variant import variant

from mangakd.runtime import load
from mangakd.runtime.rollout.start import prepare
from mangakd.runtime.service import Settings, create_app

FOLDER = Path(__file__).resolve().parents[2] / "deploy" / "monitoring"
GIVEN = {"instance", "job"}  # labels that Prometheus adds to every metric


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> dict[str, set[str]]:
    """Metric → its labels, of a service with a rollout that has answered a question."""
    tmp_path = tmp_path_factory.mktemp("rollout")
    (tmp_path / "rules.yaml").write_text(yaml.safe_dump({"log": str(tmp_path / "r.jsonl"), "steps": [1.0]}))
    model = load(variant(), 1)
    prepared = prepare(str(tmp_path / "rules.yaml"), str(variant()), str(variant()), Settings(), 1)
    app = create_app(model, prepared.student_settings, prepared.around(model))

    async def scene() -> str:
        async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://x") as client:
            assert (await client.post("/predict", json={"texts": ["order"]})).status_code == 200
            return (await client.get("/metrics")).text

    metrics: dict[str, set[str]] = {}
    for line in asyncio.run(scene()).splitlines():
        if not line.startswith("#"):
            name, _, labels = line.rpartition(" ")[0].partition("{")
            metrics.setdefault(name, set()).update(re.findall(r"(\w+)=\"", labels))
    return metrics


def alerts() -> list[dict[str, Any]]:
    content = yaml.safe_load((FOLDER / "alerts.yaml").read_text())
    assert content.keys() == {"groups"}
    return [rule for group in content["groups"] for rule in group["rules"]]


def panels() -> list[dict[str, Any]]:
    return json.loads((FOLDER / "dashboard.json").read_text())["panels"]


def expressions() -> list[str]:
    targets = [target["expr"] for panel in panels() for target in panel["targets"]]
    # What Grafana fills in before Prometheus sees an expression.
    shown = [expr.replace("$__rate_interval", "5m").replace("$instance", ".*") for expr in targets]
    return [rule["expr"] for rule in alerts()] + shown


def selectors(node: Any) -> Iterator[Any]:
    """The vector selectors of a parsed expression."""
    if isinstance(node, promql.VectorSelector):
        yield node
    for name in ("lhs", "rhs", "expr", "vector_selector", "param"):
        child = getattr(node, name, None)
        if child is not None and not isinstance(child, str | float | int):
            yield from selectors(child)
    for child in getattr(node, "args", None) or ():
        yield from selectors(child)


def names(expression: str) -> list[tuple[str, set[str]]]:
    """Metric and the labels by which it is selected."""
    found = list(selectors(promql.parse(expression)))
    assert len(found) == len(re.findall(r"\bmangakd_\w+", expression)), expression
    return [(one.name, {matcher.name for matcher in one.matchers.matchers} - {"__name__"}) for one in found]


@pytest.mark.parametrize("expression", expressions())
def test_every_metric_and_label_is_there(expression: str, page: dict[str, set[str]]) -> None:
    for metric, labels in names(expression):
        assert metric in page, metric
        assert labels <= page[metric] | GIVEN, (metric, labels)
    grouped = {label for group in re.findall(r"(?:by|on) \(([^)]*)\)", expression) for label in group.split(", ")}
    known = set().union(*(page[metric] for metric, _ in names(expression))) | GIVEN
    assert grouped <= known, grouped


@pytest.mark.parametrize(
    "expression",
    ["rate(mangakd_rollout_share[5m)", "sum(mangakd_nothing_total)", 'mangakd_rollout_phase{colour="red"}'],
)
def test_a_wrong_expression_fails(expression: str, page: dict[str, set[str]]) -> None:
    with pytest.raises((AssertionError, ValueError)):
        test_every_metric_and_label_is_there(expression, page)


def test_values_of_labels_exist(page: dict[str, set[str]]) -> None:
    from mangakd.runtime.rollout.plan import PHASES

    text = (FOLDER / "alerts.yaml").read_text()
    assert set(re.findall(r'phase="(\w+)"', text)) <= {phase.replace(" ", "_") for phase in PHASES}
    assert set(re.findall(r'side="(\w+)"', text)) <= {"student", "incumbent"}


def test_alerts_are_whole() -> None:
    rules = alerts()
    assert len({rule["alert"] for rule in rules}) == len(rules) > 5
    for rule in rules:
        assert (
            {"alert", "expr", "labels", "annotations"}
            <= rule.keys()
            <= {"alert", "expr", "for", "labels", "annotations"}
        )
        assert rule["labels"]["severity"] in ("page", "ticket") and rule["annotations"]["summary"]
        used = set(re.findall(r"\$labels\.(\w+)", rule["annotations"]["summary"]))
        assert all(re.search(rf"by \([^)]*\b{label}\b", rule["expr"]) or "by" not in rule["expr"] for label in used)
        assert re.fullmatch(r"\d+[mh]", rule.get("for", "1m"))


def test_the_dashboard_is_whole() -> None:
    content = json.loads((FOLDER / "dashboard.json").read_text())
    assert {"title", "uid", "schemaVersion", "panels", "templating"} <= content.keys()
    assert len({panel["id"] for panel in panels()}) == len(panels())
    cells = [(x, y) for panel in panels() for x, y in _cells(panel["gridPos"])]
    assert len(cells) == len(set(cells)) and max(x for x, _ in cells) < 24  # no panel on another one
    variables = {each["name"] for each in content["templating"]["list"]} | {"__rate_interval", "__all"}
    assert set(re.findall(r"\$\{?(\w+)", (FOLDER / "dashboard.json").read_text())) <= variables


def _cells(place: dict[str, int]) -> Iterator[tuple[int, int]]:
    for x in range(place["x"], place["x"] + place["w"]):
        for y in range(place["y"], place["y"] + place["h"]):
            yield x, y
