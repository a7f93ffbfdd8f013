"""What to change when a run does not fit: only changes that were themselves estimated and found to fit.

Single changes come first. Where none is enough alone they are added up, cheapest first (a stored teacher and smaller
micro-batches change no result, LoRA does), and those that turn out not to be needed are taken away again.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace

from mangakd.planning.job import GB, Job, Machine
from mangakd.planning.memory import memory, usable
from mangakd.planning.sizes import Model

RANK = 16
SHARDS = (2, 4, 8)
Setting = tuple[Machine, Job]


@dataclass(frozen=True)
class Change:
    """A way to fit: what to say, and the machine and job that it leads to."""

    text: str
    machine: Machine
    job: Job


Step = tuple[str, Callable[[Setting], Setting | None]]


def advise(student: Model, teacher: Model | None, machine: Machine, job: Job) -> list[Change]:
    """Changes that make the run fit, each enough by itself; empty when it fits or nothing helps."""

    def need(setting: Setting) -> float:
        return sum(memory(student, teacher, *setting).values())

    def fits(setting: Setting) -> bool:
        return need(setting) <= usable(setting[0])

    def change(words: list[str], setting: Setting) -> Change:
        return Change(f"{' + '.join(words)}: {need(setting) / GB:.1f} GB of {setting[0].memory_gb:.0f} GB", *setting)

    start = (machine, job)
    if fits(start):
        return []
    steps = _steps(fits)
    alone = [(words, after) for words, apply in steps if (after := apply(start)) is not None and fits(after)]
    if alone:
        return [change([_words(words, after)], after) for words, after in alone]
    # Two ways out: on these devices with adapters, or the whole student on more of them.
    here, wider = steps[:-1], [*steps[:-2], steps[-1]]
    ways = [_together(start, order, fits) for order in (here, wider)]
    changes = [change([_words(words, after) for words in order], after) for order, after in filter(None, ways)]
    return list({change.text: change for change in changes}.values())


def _steps(fits: Callable[[Setting], bool]) -> list[Step]:
    """(words, change), cheapest first; the last one takes more devices."""
    return [
        ("a stored teacher (teacher=cached)", _cached),
        ("the teacher sharded over the devices", _sharded),
        ("micro-batches of {batch} with accumulation {accumulation}", lambda setting: _smaller(setting, fits)),
        ("activation checkpointing (a third more arithmetic)", _checkpointed),
        (f"LoRA of rank {RANK}", _adapted),
        ("FSDP over {devices} devices", lambda setting: _spread(setting, fits)),
    ]


def _words(words: str, setting: Setting) -> str:
    machine, job = setting
    batch = f"{job.budget:,} tokens" if job.budget else job.batch
    return words.format(batch=batch, accumulation=job.accumulation, devices=machine.devices)


def _together(start: Setting, steps: list[Step], fits: Callable[[Setting], bool]) -> tuple[list[str], Setting] | None:
    """All steps until it fits, less those that it fits without."""
    path = []
    for step in steps:
        path.append(step)
        if fits(_apply(start, path)):
            break
    else:
        return None
    for step in list(path):
        rest = [other for other in path if other is not step]
        if fits(_apply(start, rest)):
            path = rest
    moved = [step for i, step in enumerate(path) if _apply(start, path[:i]) != _apply(start, path[: i + 1])]
    return [words for words, _ in moved], _apply(start, moved)


def _apply(setting: Setting, steps: list[Step]) -> Setting:
    for _, change in steps:
        setting = change(setting) or setting
    return setting


def _cached(setting: Setting) -> Setting | None:
    machine, job = setting
    return (machine, replace(job, teacher="cached")) if job.in_memory else None


def _sharded(setting: Setting) -> Setting | None:
    machine, job = setting
    return (
        (machine, replace(job, teacher="sharded"))
        if job.teacher == "replicated" and machine.strategy == "fsdp"
        else None
    )


def _smaller(setting: Setting, fits: Callable[[Setting], bool]) -> Setting | None:
    """The largest micro-batch that fits, else one example; the optimizer sees as many examples as before."""
    machine, job = setting
    smaller = job
    while smaller.batch > 1:
        batch = max(n for n in range(1, smaller.batch) if smaller.batch % n == 0)
        parts = smaller.batch // batch
        smaller = replace(
            smaller, batch=batch, accumulation=smaller.accumulation * parts, budget=smaller.budget // parts
        )
        if fits((machine, smaller)):
            break
    return (machine, smaller) if smaller != job else None


def _checkpointed(setting: Setting) -> Setting | None:
    machine, job = setting
    return None if job.checkpointing else (machine, replace(job, checkpointing=True))


def _adapted(setting: Setting) -> Setting | None:
    machine, job = setting
    return None if job.lora else (machine, replace(job, lora=RANK))


def _spread(setting: Setting, fits: Callable[[Setting], bool]) -> Setting | None:
    """The fewest devices of this kind that hold it, else the most; the batch of each stays."""
    machine, job = setting
    least = machine.devices + (machine.strategy == "fsdp")
    counts = [n for n in SHARDS if n >= least]
    if machine.accelerator != "gpu" or not counts:
        return None
    larger = [(replace(machine, name=f"{machine.name} as {n}× FSDP", devices=n, strategy="fsdp"), job) for n in counts]
    return next((setting for setting in larger if fits(setting)), larger[-1])
