"""Tables and a plot of what benchmarks/cold_start.py measured, beside the estimates that the design was made with."""

from __future__ import annotations

from collections.abc import Callable
from statistics import median
from typing import Any

from cpu_quota import share
from results_file import RESULTS, table, write

# Milliseconds, from the design: (low, high). Of the exported students, and of PyTorch.
COLD, WARM = "cold", "warm"
DESIGN = {
    ("pytorch", WARM): (18, 35),
    ("export", WARM): (10, 20),
    ("pytorch", COLD): (140, 260),
    ("export", COLD): (110, 220),
}
BAR, STUDENT_BAR = 15, 5  # ms a warm answer may take, and the student's own part of it
AIM = 0.06  # of PyTorch's cold start
Rounds = list[dict[str, Any]]
Results = dict[str, dict[str, Rounds]]


def report(name: str, content: dict[str, Any]) -> None:
    results: Results = content["measured"]
    plot(name, results)
    why = content["quota_refused"]
    quotas = f"This machine permits no CPU quota ({why}), so there is none." if why else (
        "CPU quotas by control groups, in periods of 20 ms: " + ", ".join(
            f"{memory} MB is {share(int(memory)):.2f} vCPU" for memory in results if memory != "None") + "."
    )  # fmt: skip
    body = f"""Seconds from the start of a process to its first answer, and milliseconds of an answer when it is warm (tokenising
included), one thread. {quotas}
Medians of rounds in which all sides took turns; [lowest–highest]; ratios within a round. CPU seconds are those of the process:
other work on the machine stretches them far less than the clock.

![Cold start and warm latency]({name}.svg)

## Cold start

{cold_table(results)}

The design estimated {span("pytorch", COLD)} for PyTorch and {span("export", COLD)} for an export. Wanted of the INT8 ONNX
runtime: at most {AIM} of PyTorch's; found: {aim(results)}.

## Warm

{warm_table(results)}

The design estimated {span("pytorch", WARM)} for PyTorch and {span("export", WARM)} for an export; wanted are less than {BAR}
ms for an answer, at most {STUDENT_BAR} of them in the student. A short text is a question of 14 words.

## Imports

Of the runtime up to its first answer, by `python -X importtime` in an environment that has torch and transformers:

{imports_table(content["proof"])}"""
    print(write(name, "Cold start and warm latency of a served student", content, body).read_text())


def span(side: str, state: str) -> str:
    low, high = DESIGN[side, state]
    return f"{low}–{high} ms"


def cold_table(results: Results) -> str:
    head = ("function", "side", "first answer, s", "of PyTorch's", "CPU s", "of PyTorch's", "peak MB")
    rows = []
    for memory, sides in results.items():
        torch = next(iter(sides.values()))
        for side, own in sides.items():
            cells = []
            for key in ("cold_s", "cpu_s"):
                cells += [spread(own, lambda one, key=key: one[key]), f"{ratio(own, torch, key):.3f}"]
            rows.append((quota_name(memory), side, *cells, f"{median(one['peak_mb'] for one in own):.0f}"))
    return table(head, rows)


def warm_table(results: Results) -> str:
    head = ("function", "side", "short p50", "p95", "p99", "128 tokens p50", "p95", "p99", "p50 of PyTorch's")
    rows = []
    for memory, sides in results.items():
        torch = next(iter(sides.values()))
        for side, own in sides.items():
            cells = [f"{value:.1f}" for text in (0, 1) for value in percentiles(own, text)]
            p50 = median(a["warm_ms"][0][0] / b["warm_ms"][0][0] for a, b in zip(own, torch, strict=True))
            rows.append((quota_name(memory), side, *cells, f"{p50:.2f}"))
    return table(head, rows)


def imports_table(proofs: dict[str, Any]) -> str:
    head = ("variant", "modules", "torch, transformers", "dearest packages, ms")
    rows = [
        (
            name,
            str(one["modules"]),
            ", ".join(one["heavy"]) or "none",
            ", ".join(f"{package} {cost:.0f}" for package, cost in one["dearest_ms"].items()),
        )
        for name, one in proofs.items()
    ]
    return table(head, rows)


def percentiles(rounds: Rounds, text: int) -> list[float]:
    """p50, p95, p99, ms."""
    return [median(one["warm_ms"][text][i] for one in rounds) for i in range(3)]


def spread(rounds: Rounds, value: Callable[[dict[str, Any]], float]) -> str:
    values = [value(one) for one in rounds]
    return f"{median(values):.2f} [{min(values):.2f}–{max(values):.2f}]"


def ratio(own: Rounds, torch: Rounds, key: str) -> float:
    return median(a[key] / b[key] for a, b in zip(own, torch, strict=True))


def aim(results: Results) -> str:
    parts = []
    for memory, sides in results.items():
        if "onnx_int8" in sides:
            torch, own = next(iter(sides.values())), sides["onnx_int8"]
            wall, cpu = (ratio(own, torch, key) for key in ("cold_s", "cpu_s"))
            parts.append(f"{wall:.3f} ({cpu:.3f} of its CPU seconds) {quota_name(memory)}")
    return "; ".join(parts) or "not measured"


def quota_name(memory: str) -> str:
    return "without a quota" if memory == "None" else f"at {memory} MB"


def plot(name: str, results: Results) -> None:
    import matplotlib

    matplotlib.use("svg")
    matplotlib.rcParams.update({"svg.hashsalt": "mangakd", "svg.fonttype": "none", "font.size": 9})
    from matplotlib import pyplot

    figure, panels = pyplot.subplots(1, 2, figsize=(9, 3.2), layout="constrained", sharey=True)
    names = list(next(iter(results.values())))
    for panel, state, title in zip(
        panels, (COLD, WARM), ("Cold: start to first answer, s", "Warm: short text, p50, ms"), strict=True
    ):
        unit = 1000 if state == COLD else 1
        for side, colour in (("pytorch", "#D55E00"), ("export", "#0072B2")):
            low, high = DESIGN[side, state]
            panel.axvspan(low / unit, high / unit, color=colour, alpha=0.15, label=f"design's estimate, {side}")
        for marker, (memory, sides) in zip("osD^v", results.items(), strict=False):
            values = [
                median(one["cold_s"] for one in sides[side]) if state == COLD else percentiles(sides[side], 0)[0]
                for side in names
            ]
            panel.plot(values, range(len(names)), marker, color="#222222", label=quota_name(memory), fillstyle="none")
        panel.set(xscale="log", title=title, yticks=range(len(names)), yticklabels=names)
        panel.xaxis.set_major_formatter("{x:g}")
        panel.xaxis.set_minor_formatter("")
        panel.grid(axis="x", color="#e2e2e2")
    panels[0].invert_yaxis()
    figure.legend(*panels[0].get_legend_handles_labels(), loc="outside lower center", ncols=5, frameon=False)
    RESULTS.mkdir(exist_ok=True)
    figure.savefig(RESULTS / f"{name}.svg", metadata={"Date": None})
