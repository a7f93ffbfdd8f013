"""`estimate`: memory, time and price of a run from the sizes of its models, before anything is loaded.

Every number is a planning estimate. What it rests on is in `Estimate.assumptions`, and printed with it.
"""

import math
from dataclasses import dataclass

from mangakd.core.errors import UserError
from mangakd.planning.advice import advise
from mangakd.planning.job import Job, Machine, Range
from mangakd.planning.memory import USABLE, memory, trainable, usable
from mangakd.planning.sizes import Model
from mangakd.planning.speed import bottleneck, eval_share, flops, mining_share, step_parts, step_seconds


@dataclass(frozen=True)
class Estimate:
    """memory: part → bytes on one device. flops: of an optimizer step on all devices. causes: seconds of a step by
    cause.

    step, epoch, mining, total: seconds, each (best, worst). advice: changes that make it fit, or what to say when none does.
    """

    student: Model
    teacher: Model | None
    machine: Machine
    job: Job
    memory: dict[str, float]
    flops: dict[str, float]
    causes: dict[str, Range]
    step: Range
    epoch: Range
    mining: Range
    fits: bool
    advice: list[str]

    @property
    def bytes(self) -> float:
        return sum(self.memory.values())

    @property
    def bottleneck(self) -> str:
        return bottleneck(self.causes)

    @property
    def total(self) -> Range:
        best, worst = (self.mining[i] + self.job.epochs * self.epoch[i] for i in range(2))
        return best, worst

    @property
    def samples_per_second(self) -> Range:
        """Over training steps, on all devices; (worst, best)."""
        samples = self.job.batch * self.job.accumulation * self.machine.devices
        return samples / self.step[1], samples / self.step[0]

    @property
    def usd(self) -> Range:
        return self.total[0] / 3600 * self.machine.hourly, self.total[1] / 3600 * self.machine.hourly

    @property
    def trained(self) -> int:
        """Parameters that learn."""
        return trainable(self.student, self.job)

    @property
    def assumptions(self) -> list[str]:
        return _assumptions(self.machine, self.job)


def estimate(student: Model, teacher: Model | None, machine: Machine, job: Job) -> Estimate:
    """The plan of one run. teacher: null where it is not a model here (an API, or no distillation).

    Raises UserError where the job has a teacher in memory and none is given, and where target tokens and models do not fit.
    """
    if any((each.decoder is not None) != (0 < job.target < job.length) for each in (student, teacher) if each):
        raise UserError(
            f"the plan of {job.name} has {job.target} target tokens of {job.length}: a student and a teacher with an encoder "
            "need some (workload.target), and fewer than workload.length; others need 0."
        )
    if teacher is None and job.in_memory:
        raise UserError(
            f"the plan of {job.name} has a {job.teacher} teacher but no sizes of it; give its sizes, or plan "
            "with a teacher that is cached, api or none."
        )
    parts = memory(student, teacher, machine, job)
    fits = sum(parts.values()) <= usable(machine)
    causes = step_parts(student, teacher, machine, job)
    best, worst = step_seconds(causes)
    steps = math.ceil(job.examples / (job.batch * job.accumulation * machine.devices))
    seconds = steps * (1 + eval_share(student, teacher, job))
    mining = steps * mining_share(student, teacher, job)
    advice = [change.text for change in advise(student, teacher, machine, job)]
    return Estimate(
        student=student,
        teacher=teacher,
        machine=machine,
        job=job,
        memory=parts,
        flops=flops(student, teacher, machine, job),
        causes=causes,
        step=(best, worst),
        epoch=(seconds * best, seconds * worst),
        mining=(mining * best, mining * worst),
        fits=fits,
        advice=advice if fits or advice else ["nothing helps here: a smaller student, or devices with more memory"],
    )


def _assumptions(machine: Machine, job: Job) -> list[str]:
    bad, good = machine.mfu
    notes = [
        f"peak {machine.peak(job.precision) / 1e12:g} TFLOP/s a device on paper, {bad:.0%}–{good:.0%} of it reached; "
        f"{machine.bandwidth_gb_s:g} GB/s of memory",
        f"{job.length} tokens an example on average, padding included"
        + (f", {job.target} of them in the target" if job.target else "")
        + (f"; memory for batches as long as the longest, {job.longest}" if job.longest > job.length else ""),
        f"fused AdamW, SDPA attention, eager PyTorch; memory alive all at once, {1 - USABLE:.0%} of a device left free",
        f"{machine.hourly:g} USD an hour for all devices"
        if machine.hourly
        else "no price: hardware.machine.usd_per_hour",
        "not counted: start-up, tokenising, fine-tuning or storing the teacher, generating text",
    ]
    if job.precision == "bf16-true":
        notes.append(
            "bf16-true: AdamW with fp32 moments and an fp32 master copy (torch's own has neither for bf16 weights)"
        )
    if job.lora:
        dtype = "bf16" if job.precision.startswith("bf16") else "fp32"
        frozen = f"4 bits (matrices) and {dtype}" if job.four_bit else dtype
        notes.append(f"LoRA of rank {job.lora} in fp32; frozen weights in {frozen}")
    if job.in_memory:
        notes.append(f"teacher in {job.teacher_dtype}, run on every training and evaluation batch")
    if job.teacher == "api":
        notes.append("the API's price is not included")
    return notes
