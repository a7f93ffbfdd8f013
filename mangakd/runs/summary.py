"""One line about a run, printed before it starts."""

from collections.abc import Sequence

from mangakd.core.spec import Head
from mangakd.data.source import Corpus
from mangakd.losses.loss_set import LossSet
from mangakd.runs.run import Run
from mangakd.students.build import Student
from mangakd.training.hardware import Hardware
from mangakd.training.stages import Stage


def summary(run: Run) -> str:
    """Data, models, losses and the optimizer's step."""
    hardware, models = run.parts.hardware, run.models
    setting = run.given.settings("hardware.precision")
    return (
        f"{_data(run.parts.corpus, models.head)}; {models.teacher_spec.sizes()} → {models.student_spec.sizes()}"
        f"{_adapters(run.parts.student)}; "
        f"{_losses(run.material.losses)}{_limits(run.parts.stages)}; "
        f"steps of {_step(hardware)} in {_precision(hardware, setting)}"
    )


def _data(corpus: Corpus, head: Head) -> str:
    rows = f"{len(corpus.train)} / {len(corpus.validation)} / {len(corpus.test)} rows"
    return f"{corpus.name}: {rows}, {f'{head.outputs} labels' if head.kind == 'labels' else head}"


def _adapters(student: Student) -> str:
    lora = student.adapters
    return f" with adapters of rank {lora.rank}{' on 4-bit weights' * lora.four_bit}" if lora else ""


def _limits(stages: Sequence[Stage]) -> str:
    limits = [f"{stage.name} from {stage.limit} rows" for stage in stages if stage.limit is not None]
    return f"; {', '.join(limits)}" if limits else ""


def _losses(losses: LossSet) -> str:
    return f"losses {', '.join(losses.callbacks)}"


def _step(hardware: Hardware) -> str:
    """`64 rows`, `64 rows = 2 devices (ddp) × 32`, or `4 batches of at most 4,096 tokens = 2 devices (ddp) × 2 micro-batches`."""
    factors = [f"{hardware.world} devices ({hardware.strategy})"] if hardware.world > 1 else []
    several = hardware.world * hardware.accumulate > 1
    factors += [str(hardware.batch_size)] if several and hardware.tokens_per_batch is None else []
    factors += [f"{hardware.accumulate} micro-batches"] if hardware.accumulate > 1 else []
    return str(hardware.step) + (f" = {' × '.join(factors)}" if factors else "")


def _precision(hardware: Hardware, setting: str) -> str:
    """The precision, and why where the profile left the choice to the machine."""
    if setting != "auto" or hardware.precision == "32-true":
        return hardware.precision
    return f"{hardware.precision} (this CPU has bf16 units; hardware.precision=32-true computes in fp32)"
