"""Estimates as plain text: one plan in full, or several side by side. Each says that it is a planning estimate."""

from collections.abc import Callable, Sequence

from mangakd.planning.job import GB, Range
from mangakd.planning.plan import Estimate

LABEL = "planning estimate"


def one(plan: Estimate) -> str:
    """The whole plan of a run: memory by part, speed, time, price, advice, assumptions."""
    memory = [(part, f"{size / GB:,.2f} GB") for part, size in plan.memory.items() if size > 0]
    lines = [f"{LABEL}: {plan.job.name} on {plan.machine.name}", "", *_pairs(_facts(plan)), ""]
    lines += ["memory on each device", *_pairs(memory), *_pairs([("sum", _fit(plan))]), ""]
    lines += ["time and price", *_pairs(_times(plan)), ""]
    if plan.advice:
        lines += [f"to make it fit, any one of ({LABEL})", *(f"  - {text}" for text in plan.advice), ""]
    return "\n".join([*lines, "assumptions", *(f"  - {text}" for text in plan.assumptions)])


def compare(plans: Sequence[Estimate]) -> str:
    """A row for each question, a column for each plan."""
    rows = [["", *(plan.machine.name for plan in plans)]]
    rows += [[title, *(cell(plan) for plan in plans)] for title, cell in COLUMNS.items()]
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
    body = [
        "  ".join([row[0].ljust(widths[0]), *(c.rjust(w) for c, w in zip(row[1:], widths[1:], strict=True))])
        for row in rows
    ]
    notes = [f"{plan.machine.name}: {plan.advice[0]}" for plan in plans if not plan.fits]
    if notes:
        notes = ["", "to make it fit", *(f"  {note}" for note in notes)]
    return "\n".join([f"{LABEL}: {plans[0].job.name}, side by side", "", *(line.rstrip() for line in body), *notes])


def _facts(plan: Estimate) -> list[tuple[str, str]]:
    job, machine = plan.job, plan.machine
    teacher = f"{plan.teacher.name}, {count(plan.teacher.parameters)}, " if plan.teacher else ""
    most = f" on average, {job.budget:,} at most" if job.budget else ""
    return [
        ("student", f"{plan.student.name}, {count(plan.student.parameters)}, of which {count(plan.trained)} learn"),
        ("teacher", f"{teacher}{job.teacher}"),
        ("devices", f"{machine.devices} × {machine.memory_gb:g} GB, {machine.strategy}"),
        (
            "batch",
            f"{job.batch} × {job.length} tokens a device{most}, accumulation {job.accumulation}, {job.precision}",
        ),
        ("job", f"{job.examples:,} examples, {job.epochs} epochs"),
    ]


def _times(plan: Estimate) -> list[tuple[str, str]]:
    return [
        ("arithmetic of a step", " + ".join(f"{name} {n:.3g}" for name, n in plan.flops.items() if n) + " FLOP"),
        ("step", between(plan.step, duration)),
        ("samples a second", between(plan.samples_per_second, figure)),
        ("tokens a second", between(_tokens(plan), figure)),
        ("epoch, with evaluation", between(plan.epoch, duration)),
        *([("mining by the teacher", between(plan.mining, duration))] if plan.mining[1] else []),
        ("total", between(plan.total, duration)),
        ("price", _price(plan)),
        ("likely bottleneck", plan.bottleneck),
    ]


def _tokens(plan: Estimate) -> Range:
    worst, best = plan.samples_per_second
    return worst * plan.job.length, best * plan.job.length


def _fit(plan: Estimate) -> str:
    return f"{plan.bytes / GB:,.2f} GB of {plan.machine.memory_gb:g} GB: {'fits' if plan.fits else 'does NOT fit'}"


def _price(plan: Estimate) -> str:
    return between(plan.usd, lambda usd: f"{usd:.2f}") + " USD" if plan.machine.usd_per_hour else "own machine"


def _largest(plan: Estimate) -> str:
    part = max(plan.memory, key=lambda name: plan.memory[name])
    return f"{part} {plan.memory[part] / GB:.1f}"


COLUMNS: dict[str, Callable[[Estimate], str]] = {
    "devices": lambda plan: f"{plan.machine.devices} × {plan.machine.memory_gb:g} GB",
    "batch × accumulation": lambda plan: f"{plan.job.batch} × {plan.job.accumulation}",
    "precision": lambda plan: plan.job.precision,
    "GB on each device": lambda plan: f"{plan.bytes / GB:,.1f}",
    "largest part, GB": _largest,
    "fits": lambda plan: "yes" if plan.fits else "NO",
    "samples a second": lambda plan: between(plan.samples_per_second, figure),
    "tokens a second": lambda plan: between(_tokens(plan), figure),
    "epoch": lambda plan: between(plan.epoch, duration),
    "total": lambda plan: between(plan.total, duration),
    "price": _price,
    "likely bottleneck": lambda plan: plan.bottleneck,
}


def _pairs(rows: Sequence[tuple[str, str]]) -> list[str]:
    return [f"  {title:<24}{value}" for title, value in rows]


def between(ends: Range, show: Callable[[float], str]) -> str:
    """`3–7 min`; a unit that both ends share is said once."""
    low, high = show(ends[0]), show(ends[1])
    number, _, unit = low.partition(" ")
    if low == high:
        return low
    return f"{number}–{high}" if high.endswith(f" {unit}") and unit else f"{low}–{high}"


def figure(value: float) -> str:
    """Two figures are all that an estimate has."""
    return f"{float(f'{value:.2g}'):,.15g}"


def count(parameters: int) -> str:
    return f"{parameters / 1e9:.2f}B" if parameters >= 1e9 else f"{parameters / 1e6:.1f}M"


def duration(seconds: float) -> str:
    for size, unit in ((86400, "days"), (3600, "h"), (60, "min"), (1, "s")):
        if seconds >= size:
            return f"{figure(seconds / size)} {unit}"
    return f"{figure(1000 * seconds)} ms"
