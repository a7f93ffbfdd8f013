"""Machines and jobs to plan for: the hardware profiles, the models of MangaAssist, and the tasks that use them.

Peaks are the vendors' dense figures: A100 80 GB SXM 312 TFLOP/s in bf16, 19.5 in fp32, 2,039 GB/s, NVLink 300 GB/s each
way; H100 SXM 989, 67, 3,350 GB/s; A10G 70, 35, 600 GB/s, PCIe; M2 Max (38 cores, 64 GB) 13.6 in fp32, 400 GB/s. The CPU
is eight cores with AVX2 at 3 GHz (16 FMA a cycle and core) and two channels of DDR4. Prices are round figures of 2026's
on-demand lists: check yours. The number of examples in an optimizer step is the same on every machine.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cache
from typing import Any

from transformers import AutoConfig

from mangakd.core.errors import UserError, near
from mangakd.planning.job import Job, Machine
from mangakd.planning.plan import Estimate, estimate
from mangakd.planning.sizes import Kind, Model

_A100 = {"fp32": 19.5, "bf16": 312.0}
MACHINES = {
    machine.name: machine
    for machine in (
        Machine("a100", 80, _A100, 2039, mfu=(0.25, 0.45), usd_per_hour=2.5),
        Machine("a10g_x2_ddp", 24, {"fp32": 35.0, "bf16": 70.0}, 600, mfu=(0.25, 0.45), devices=2, strategy="ddp",
                usd_per_hour=2.4, link_gb_s=12),
        Machine("a100_x4_fsdp", 80, _A100, 2039, mfu=(0.25, 0.45), devices=4, strategy="fsdp", usd_per_hour=10.0,
                link_gb_s=300),
        Machine("h100", 80, {"fp32": 67.0, "bf16": 989.0}, 3350, mfu=(0.2, 0.4), usd_per_hour=4.0),
        # Metal may use about three quarters of the unified memory.
        Machine("mps", 48, {"fp32": 13.6}, 400, mfu=(0.2, 0.5), accelerator="mps", launch_us=(10, 40)),
        Machine("cpu", 32, {"fp32": 0.77}, 50, mfu=(0.3, 0.9), accelerator="cpu", usd_per_hour=0.4, reserved_gb=0.5),
    )
}  # fmt: skip

_LLAMA = {"vocab_size": 128256, "num_key_value_heads": 8}
_SHAPES: dict[str, tuple[Kind, dict[str, Any]]] = {
    "tinybert_4l_312d": ("classifier", {
        "model_type": "bert", "num_hidden_layers": 4, "hidden_size": 312, "num_attention_heads": 12,
        "intermediate_size": 1200,
    }),
    "distilbert": ("classifier", {"model_type": "distilbert"}),
    "bert_base": ("classifier", {"model_type": "bert"}),
    "llama3_8b": ("language_model", {
        "model_type": "llama", "hidden_size": 4096, "num_hidden_layers": 32, "num_attention_heads": 32,
        "intermediate_size": 14336, **_LLAMA,
    }),
    "llama3_3b": ("language_model", {
        "model_type": "llama", "hidden_size": 3072, "num_hidden_layers": 28, "num_attention_heads": 24,
        "intermediate_size": 8192, "tie_word_embeddings": True, **_LLAMA,
    }),
    "llama3_70b": ("language_model", {
        "model_type": "llama", "hidden_size": 8192, "num_hidden_layers": 80, "num_attention_heads": 64,
        "intermediate_size": 28672, **_LLAMA,
    }),
}  # fmt: skip


@dataclass(frozen=True)
class Task:
    """A job with its models. batches: (batch, accumulation) by machine, with `*` for the rest."""

    student: str
    teacher: str | None
    job: Job
    batches: dict[str, tuple[int, int]]


_RESPONSE = Job("response", 12_000, 3, batch=1, length=512, teacher="api", soft_targets=False, eval_examples=500)
_RESPONSE_BATCHES = {"a100": (8, 4), "h100": (8, 4), "a100_x4_fsdp": (8, 1), "a10g_x2_ddp": (1, 16), "*": (1, 32)}
TASKS = {
    # 25,000 utterances, 5 epochs; teacher and student are MangaAssist's.
    "intent": Task(
        "tinybert_4l_312d",
        "distilbert",
        Job("intent", 25_000, 5, batch=128, length=128, eval_examples=3_000),
        {"a10g_x2_ddp": (64, 1), "a100_x4_fsdp": (32, 1), "mps": (64, 2), "cpu": (64, 2), "*": (128, 1)},
    ),
    # 12,000 conversations, 3 epochs, answers written by a teacher behind an API: the whole student, then adapters.
    "response": Task("llama3_8b", None, _RESPONSE, _RESPONSE_BATCHES),
    "response_lora": Task("llama3_8b", None, replace(_RESPONSE, task="response_lora", lora=16), _RESPONSE_BATCHES),
    "response_3b": Task("llama3_3b", None, replace(_RESPONSE, task="response_3b"), _RESPONSE_BATCHES),
    # Soft targets of every token from a 70B teacher, in bf16 beside the student.
    "response_soft": Task(
        "llama3_8b",
        "llama3_70b",
        replace(_RESPONSE, task="response_soft", lora=16, teacher="live", teacher_dtype="bf16", soft_targets=True),
        _RESPONSE_BATCHES,
    ),
}


def config(name: str) -> Any:
    """The Hugging Face config of one of the shapes above. A classifier has the 10 intents of the corpus."""
    kind, entries = _SHAPES[_known("model", name, _SHAPES)]
    head: dict[str, Any] = {"num_labels": 10} if kind == "classifier" else {}
    return AutoConfig.for_model(**entries, **head)


@cache
def model(name: str) -> Model:
    return Model.from_config(config(name), name, _SHAPES[name][0], key=f"model {name}")


def plan(machine: str | Machine, task: str, change: Callable[[Job], Job] = lambda job: job) -> Estimate:
    """A task on a machine, both by name; `change` alters the job."""
    chosen = MACHINES[_known("hardware", machine, MACHINES)] if isinstance(machine, str) else machine
    found = TASKS[_known("task", task, TASKS)]
    batch, accumulation = found.batches.get(chosen.name, found.batches["*"])
    precision = "bf16-mixed" if "bf16" in chosen.tflops else "32-true"
    job = change(replace(found.job, batch=batch, accumulation=accumulation, precision=precision))
    return estimate(model(found.student), model(found.teacher) if found.teacher else None, chosen, job)


def _known(key: str, name: str, known: dict[str, Any]) -> str:
    if name not in known:
        raise UserError(f"{key}={name} has no plan{near(name, known)} Known: {', '.join(known)}.")
    return name
