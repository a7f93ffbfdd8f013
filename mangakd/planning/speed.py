"""Floating-point operations and seconds of one optimizer step, as a range.

Six things can hold a step up: matrix products, reading and writing memory, the logits of a large vocabulary, the host
that launches kernels, talk between devices, the loader. The good end of the range is the largest of them alone, as if
all others hid behind it, each at its best; the bad end is their sum, each at its worst. The largest at their middle
is the likely bottleneck.
"""

import math

from mangakd.planning.job import GB, TEACHER_BYTES, Job, Machine, Range
from mangakd.planning.memory import activations, logits, states, trainable
from mangakd.planning.sizes import Model

KERNELS = 30  # that one layer launches in a forward pass; backward launches twice as many
KERNELS_ELSE = 200  # embeddings, head, losses, clipping, fused optimizer, logging
BANDWIDTH = (0.6, 0.85)  # share of a vendor's bandwidth that streams reach, memory and links alike


def flops(student: Model, teacher: Model | None, machine: Machine, job: Job) -> dict[str, float]:
    """Of one optimizer step on all devices. Backward is two forward passes; with LoRA one, as frozen weights need no
    gradient; checkpointing adds a forward pass."""
    samples = job.batch * job.accumulation * machine.devices
    passes = _passes(job)
    return {"student": passes * _ahead(student, job, samples), "teacher": _taught(teacher, job, samples)}


def step_parts(student: Model, teacher: Model | None, machine: Machine, job: Job) -> dict[str, Range]:
    """Cause → (best, worst) seconds of an optimizer step, on one device."""
    work = sum(flops(student, teacher, machine, job).values()) / machine.devices
    bad, good = (machine.peak(job.precision) * share for share in machine.mfu)
    memory = machine.bandwidth_gb_s * GB
    kernels = job.accumulation * _kernels(student, teacher, job)
    least, most = (us * 1e-6 * kernels for us in machine.launch_us)
    loading = job.batch * job.accumulation / machine.texts_per_s
    return {
        "compute": (work / good, work / bad),
        "memory bandwidth": _streams(_traffic(student, teacher, machine, job), memory),
        "logits": _streams(2 * job.accumulation * logits(student, job), memory),
        "kernel launches": (least, most),
        "communication": _streams(_sent(student, teacher, machine, job), machine.link_gb_s * GB),
        "data": (loading, 2 * loading),
    }


def step_seconds(parts: dict[str, Range]) -> Range:
    return max(best for best, _ in parts.values()), sum(worst for _, worst in parts.values())


def bottleneck(parts: dict[str, Range]) -> str:
    return max(parts, key=lambda name: sum(parts[name]))


def eval_share(student: Model, teacher: Model | None, job: Job) -> float:
    """Seconds of an epoch's evaluation over those of its training: forward passes over forward and backward ones."""
    extra, ahead = _taught(teacher, job, 1), _ahead(student, job, 1)
    return job.eval_examples / job.examples * (ahead + extra) / (_passes(job) * ahead + extra)


def mining_share(student: Model, teacher: Model | None, job: Job) -> float:
    """Seconds that the teacher mines for, over those of an epoch's training."""
    extra = _taught(teacher, job, 1)
    return job.mined / job.examples * extra / (_passes(job) * _ahead(student, job, 1) + extra)


def _passes(job: Job) -> int:
    return (2 if job.lora else 3) + (1 if job.checkpointing else 0)


def _ahead(student: Model, job: Job, samples: float) -> float:
    """FLOP of the student's forward pass over examples, and over the queries that it reads apart."""
    queries = student.forward_flops(samples * job.student_queries, job.query_length)
    return student.forward_flops(samples, job.length, job.target) + queries


def _taught(teacher: Model | None, job: Job, samples: float) -> float:
    """As `_ahead`, of the teacher; 0 where it is not in memory."""
    if teacher is None or not job.in_memory:
        return 0.0
    queries = teacher.forward_flops(samples * job.teacher_queries, job.query_length)
    return teacher.forward_flops(samples, job.teacher_length or job.length, job.target) + queries


def _streams(size: float, speed: float) -> Range:
    worst, best = BANDWIDTH
    return size / (speed * best), size / (speed * worst)


def _kernels(student: Model, teacher: Model | None, job: Job) -> int:
    passes = (3 + (1 if job.checkpointing else 0)) * (2 if job.student_queries else 1)
    taught = teacher.depth * (2 if job.teacher_queries else 1) if teacher is not None and job.in_memory else 0
    return KERNELS * (passes * student.depth + taught) + KERNELS_ELSE


def _traffic(student: Model, teacher: Model | None, machine: Machine, job: Job) -> float:
    """Bytes to and from memory: the optimizer reads and writes its states, each pass reads the weights, and what is
    kept for backward is written and read, forward and backward."""
    shards = machine.devices if machine.strategy == "fsdp" else 1
    update = 28 * trainable(student, job) / shards  # reads weight, gradient, two moments; writes three of them
    each = 2 * states(student, job)["weights"] + 4 * activations(student, machine, job)
    if teacher is not None and job.in_memory:
        each += TEACHER_BYTES[job.teacher_dtype] * teacher.parameters
        passed = (job.tokens - job.targets) * teacher.layers
        passed += job.targets * teacher.decoder.layers if teacher.decoder else 0
        each += passed * job.width * 2 * (8 * teacher.hidden + 2 * teacher.intermediate)
    return update + job.accumulation * each


def _sent(student: Model, teacher: Model | None, machine: Machine, job: Job) -> float:
    """Bytes that one device sends in a step. DDP reduces gradients once a step; FSDP gathers weights for forward and
    backward and scatters gradients in every micro-batch; a sharded teacher is gathered once in each."""
    others = (machine.devices - 1) / machine.devices
    if math.isinf(machine.link_gb_s):
        return 0.0
    gradients = trainable(student, job)
    sent = 0.0
    if machine.strategy == "ddp":
        sent = 2 * states(student, job)["gradients"]
    if machine.strategy == "fsdp":
        sent = job.accumulation * job.width * (2 * student.parameters + gradients)
    if teacher is not None and job.teacher == "sharded":
        sent += job.accumulation * TEACHER_BYTES[job.teacher_dtype] * teacher.parameters
    return others * sent
