"""Bytes that one device holds at the peak of a training step, part by part.

Weights, gradients and AdamW states are arithmetic. Activations are what PyTorch keeps for backward with SDPA, read
off the layers of transformers' BERT and Llama (Korthikanti et al. 2022, arXiv:2205.05198, has the same count for BERT
in 16 bits: 34 bytes · hidden a token and layer, without attention maps, which SDPA does not keep). Everything is
added up as if it were alive at once; what backward needs for a moment is counted for one layer. Checked against
measured peaks by benchmarks/memory.py: 1 % off without activations, up to a tenth too low with them.
"""

from dataclasses import replace

from mangakd.planning.job import GB, TEACHER_BYTES, Job, Machine
from mangakd.planning.sizes import Model

ADAMW_STATES = 8  # two fp32 moments
MAPS = 12  # bytes that SDPA without a fused kernel keeps for a cell of an attention map with dropout
FOUR_BIT = (
    0.5 + (1 + 4 / 256) / 64
)  # bytes of a weight in NF4, with the 8-bit scale of 64 and the fp32 scale of 256 of these
USABLE = 0.92  # of a device's memory: the caching allocator leaves holes


def trainable(student: Model, job: Job) -> int:
    """Parameters that learn. With LoRA the adapters and the task's head."""
    return student.parameters if job.lora is None else job.lora * student.adapter + student.whole


def memory(student: Model, teacher: Model | None, machine: Machine, job: Job) -> dict[str, float]:
    """Part → bytes on one device, in the longest batch."""
    job = _longest(job)
    shards = machine.devices if machine.strategy == "fsdp" else 1
    parts = {name: size / shards for name, size in states(student, job).items()}
    parts["low-precision copies"] = _copies(student, machine, job)
    parts["activations"] = activations(student, machine, job)
    parts["logits and losses"] = logits(student, job) + _taps(student, teacher, job)
    parts["teacher"] = _teacher(teacher, machine, job)
    parts["communication"] = _communication(student, machine, job)
    parts["reserved"] = machine.reserved_gb * GB
    return parts


def _longest(job: Job) -> Job:
    """The job with all batches as large as the longest one."""
    length = max(job.length, job.longest)
    target = max(job.target, job.longest_target)
    return replace(job, length=length, target=target, batch=max(job.budget // length, 1) if job.budget else job.batch)


def usable(machine: Machine) -> float:
    return USABLE * machine.memory_gb * GB


def states(student: Model, job: Job) -> dict[str, float]:
    """Weights, gradients and optimizer of the whole student: 16 bytes a trained parameter, in either precision.

    32-true and mixed: 4 + 4 + 8. bf16-true: 2 + 2 + 8 and an fp32 master copy of 4. LoRA's adapters are fp32.
    """
    learns = trainable(student, job)
    if job.lora is not None:
        return {
            "weights": _frozen(student, job) + 4 * learns,
            "gradients": 4 * learns,
            "optimizer": ADAMW_STATES * learns,
        }
    size = 2 if job.precision == "bf16-true" else 4
    master = 4 if job.precision == "bf16-true" else 0
    return {"weights": size * learns, "gradients": size * learns, "optimizer": (ADAMW_STATES + master) * learns}


def _frozen(student: Model, job: Job) -> float:
    """Bytes of the weights under adapters (training/hardware.py `frozen`); matrices in 4 bits if asked."""
    size, count = 2 if job.precision.startswith("bf16") else 4, student.parameters - student.whole
    return size * count if not job.four_bit else FOUR_BIT * student.multiplied + size * (count - student.multiplied)


def _copies(student: Model, machine: Machine, job: Job) -> float:
    """autocast keeps a 16-bit copy of every fp32 matrix until the step ends; FSDP gathers in 16 bits instead."""
    if not job.mixed or machine.strategy == "fsdp":
        return 0.0
    if job.lora is not None:
        return 2 * job.lora * student.adapter
    return 2 * (student.multiplied + student.head)


def activations(student: Model, machine: Machine, job: Job) -> float:
    """Kept for backward, and the gradients of the layer that backward is in."""
    layers = _layers(student, machine, job)
    working = _working(student, job)
    if not job.checkpointing:
        return sum(count * each for count, _, each in layers) + working
    # The input of each layer, and one layer computed again.
    inputs = sum(count * tokens for count, tokens, _ in layers) * _residual(machine, job) * student.hidden
    return inputs + max(each for *_, each in layers) + working


def _layers(model: Model, machine: Machine, job: Job) -> list[tuple[int, int, float]]:
    """Of each stack of layers (how many, tokens that they read, bytes that one layer keeps)."""
    if model.decoder is None:
        return [(model.layers, job.tokens, job.tokens * activation_bytes(model, machine, job))]
    sources, targets, source = job.tokens - job.targets, job.targets, job.length - job.target
    own = activation_bytes(replace(model, intermediate=model.decoder.intermediate), machine, job, job.target)
    keys = sources * job.width * 2 * model.heads * model.head_size
    return [
        (model.layers, sources, sources * activation_bytes(model, machine, job, source)),
        (model.decoder.layers, targets, targets * (own + _cross_bytes(model, machine, job, source)) + keys),
    ]


def _cross_bytes(model: Model, machine: Machine, job: Job, keys: int) -> float:
    """What a decoder's layer keeps more for one target token: its norm, the query's input, the query, attention's output."""
    residual, attended = _residual(machine, job), model.heads * model.head_size
    copy = 1 if residual > job.width else 0
    maps = MAPS * model.heads * keys if model.eager or machine.accelerator != "gpu" else 0
    return job.width * ((1 + copy) * model.hidden + 2 * attended) + residual * model.hidden + maps


def _working(model: Model, job: Job) -> float:
    """Of the layer that a pass is in: the larger one of encoder and decoder."""
    stacks = [(job.tokens - job.targets if model.decoder else job.tokens, model.intermediate)]
    stacks += [(job.targets, model.decoder.intermediate)] if model.decoder else []
    return max(tokens * job.width * (4 * model.hidden + 2 * intermediate) for tokens, intermediate in stacks)


def activation_bytes(model: Model, machine: Machine, job: Job, keys: int = 0) -> float:
    """Bytes that one layer keeps for one token, per number `width` but where said. keys: tokens that it attends to; 0: all.

    BERT: inputs of the matrices (query, key and value share one), query, key, value, attention's output, GELU's input
    and output; LayerNorm's inputs, as wide as the residual stream; masks of two dropouts, a byte each on a GPU.
    Llama: the same with SwiGLU's four tensors, keys and values repeated for all heads, and RMSNorm, which keeps its
    input in fp32 and its result. Where the residual stream is fp32 under autocast, each matrix that shares an input
    makes its own bf16 copy. Attention's dropout makes SDPA keep its maps where no fused kernel knows dropout: not on
    a GPU.
    """
    width, hidden, attended = job.width, model.hidden, model.heads * model.head_size
    residual = _residual(machine, job)
    autocast = residual > width
    if model.gated:
        inputs = 2 + (3 if autocast else 0)
        maps = MAPS * model.heads * (keys or job.length) if model.eager else 0
        return width * (inputs * hidden + 4 * attended + 4 * model.intermediate) + 2 * (4 + residual) * hidden + maps
    inputs = 2 + (2 if autocast else 0)
    fused = machine.accelerator == "gpu" and not model.eager
    masks = 2 * hidden if fused else 2 * width * hidden + MAPS * model.heads * (keys or job.length)
    return width * (inputs * hidden + 4 * attended + 2 * model.intermediate) + 2 * residual * hidden + masks


def _residual(machine: Machine, job: Job) -> int:
    """Bytes of a number between layers. FSDP casts inputs, autocast does not; LoRA's frozen weights are bf16."""
    plain = job.mixed and machine.strategy != "fsdp" and (job.lora is None or job.precision == "16-mixed")
    return 4 if plain or job.precision == "32-true" else 2


def logits(student: Model, job: Job) -> float:
    """Student's logits, fp32 log-probabilities for each loss, the teacher's, and the gradient on the way back.

    Hard labels keep one fp32 copy and backward needs another. Soft targets of a teacher in memory add: the student's
    and the teacher's log-probabilities, the teacher's probabilities and logits. Stored ones are a few for each token,
    and add the student's log-probabilities alone. For a vocabulary of 128k this is gigabytes.
    """
    tokens = job.targets if student.decoder else job.tokens
    cells = student.outputs * (tokens if student.per_token else job.batch)
    hard = job.width + 4 + (4 + job.width)
    soft = 0
    if job.soft_targets and job.teacher != "none":
        soft = (job.width + 12) if job.in_memory else 4
    return cells * (hard + soft)


def _taps(student: Model, teacher: Model | None, job: Job) -> float:
    """Hidden states: both sides, the projection and the fp32 difference. Attention: the teacher's query, key and
    value, and fp32 scores and their difference for each head."""
    hidden = teacher.hidden if teacher else student.hidden
    states = job.hidden_pairs * job.tokens * (job.width * (student.hidden + hidden) + 8 * hidden)
    maps = job.batch * student.heads * job.length**2
    return states + job.attention_pairs * (job.tokens * 3 * job.width * hidden + 12 * maps)


def _teacher(teacher: Model | None, machine: Machine, job: Job) -> float:
    """Its weights, and the working set of one layer: without a graph nothing else is kept."""
    if teacher is None or not job.in_memory:
        return 0.0
    size = TEACHER_BYTES[job.teacher_dtype]
    weights = teacher.parameters * size
    if job.teacher == "sharded":
        weights = weights / machine.devices + (2 * teacher.layer + teacher.outside) * size
    elif job.mixed and job.teacher_dtype == "float32":
        weights += 2 * teacher.layer  # autocast does not keep copies of weights that do not learn
    return weights + _working(teacher, job)


def _communication(student: Model, machine: Machine, job: Job) -> float:
    """DDP: buckets as large as the gradients. FSDP: two gathered layers, the parameters outside the layers, which stay
    gathered, and one layer's gradients before they are scattered."""
    if machine.strategy == "ddp":
        return states(student, job)["gradients"]
    if machine.strategy == "fsdp":
        scattered = 1 if job.lora is None else 0
        return job.width * ((2 + scattered) * student.layer + student.outside)
    return 0.0
