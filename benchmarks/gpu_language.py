"""A training step of a language model with random weights on one device: tokens a second and peak memory.

Imported by gpu.py. This is the plain next-token step, without mangakd, that its plan for one A100
is about: frozen bf16 weights, LoRA adapters of rank 16 in fp32 on all matrices of all layers under bf16 autocast, AdamW on the
adapters, every layer computed again in backward. A step is 8 texts of 512 tokens, in the largest micro-batches that fit.
"""

from __future__ import annotations

import gc
import math
import statistics
from collections.abc import Callable
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import torch
import torch.nn.functional as F
from gpu_pair import forget_peak, now, peak
from torch import Tensor, nn
from transformers import AutoConfig, AutoModelForCausalLM

from mangakd.models.hidden import layer_list
from mangakd.planning.advice import RANK
from mangakd.planning.job import Job, Machine
from mangakd.planning.plan import Estimate, estimate
from mangakd.planning.sizes import Model

PRECISION = "bf16-mixed"


class LoraLinear(nn.Module):
    """A frozen matrix plus a learnt one of low rank (LoRA: Hu et al. 2021, arXiv:2106.09685). (…, in) → (…, out)."""

    def __init__(self, base: nn.Linear, rank: int) -> None:
        super().__init__()
        self.base = base.requires_grad_(False)
        device = base.weight.device
        self.down = nn.Parameter(torch.empty(rank, base.in_features, device=device, dtype=torch.float32))
        self.up = nn.Parameter(torch.zeros(base.out_features, rank, device=device, dtype=torch.float32))
        nn.init.kaiming_uniform_(self.down, a=math.sqrt(5))

    def forward(self, inputs: Tensor) -> Tensor:
        return self.base(inputs) + F.linear(F.linear(inputs, self.down), self.up)


@dataclass(frozen=True)
class Language:
    """sizes: entries of a Hugging Face config. batch: texts of a step, of `length` tokens each."""

    name: str
    sizes: dict[str, Any]
    batch: int
    length: int
    warm: int
    windows: int
    window: int
    device: torch.device

    def model(self) -> nn.Module:
        """Random weights, made on the device; only adapters learn."""
        config = AutoConfig.for_model(**self.sizes, use_cache=False)
        with self.device:
            model = AutoModelForCausalLM.from_config(config, dtype=torch.bfloat16, attn_implementation="sdpa")
        model.requires_grad_(False)
        for layer in layer_list(model, config.num_hidden_layers) or ():
            matrices = [(name, module) for name, module in layer.named_modules() if isinstance(module, nn.Linear)]
            for name, module in matrices:
                layer.set_submodule(name, LoraLinear(module, RANK))
        model.gradient_checkpointing_enable(gradient_checkpointing_kwargs={"use_reentrant": False})
        return model.train()

    def plan(self, machine: Machine, micro: int) -> Estimate:
        job = Job(
            self.name, self.batch, 1, micro, self.length, accumulation=self.batch // micro, precision=PRECISION,
            teacher="none", soft_targets=False, lora=RANK, checkpointing=True,
        )  # fmt: skip
        return estimate(Model.from_sizes(self.sizes, self.name, "tokens", self.name), None, machine, job)

    def measure(self, machine: Machine) -> dict[str, Any]:
        """In the largest micro-batches that fit."""
        model = self.model()
        micro = self.batch
        while True:
            try:
                seconds, bytes_ = self._time(self._stepper(model, micro))
                break
            except torch.cuda.OutOfMemoryError:
                if micro == 1:
                    raise SystemExit(f"{self.name} does not fit on this device, even one text at a time") from None
                micro //= 2
            # Outside `except`, whose traceback would keep the step's tensors.
            model.zero_grad()
            gc.collect()
            torch.cuda.empty_cache()
        step, tokens, expected = statistics.median(seconds), self.batch * self.length, self.plan(machine, micro)
        return {
            "model": self.name,
            "parameters": expected.student.parameters,
            "trained": sum(p.numel() for p in model.parameters() if p.requires_grad),
            "micro_batch": micro,
            "tokens_per_second": tokens / step,
            "tokens_per_second_planned": tuple(self.length * samples for samples in expected.samples_per_second),
            "step_ms": 1e3 * step,
            "windows_ms": [1e3 * each for each in seconds],
            "mfu": sum(expected.flops.values()) / step / machine.peak(PRECISION),
            "peak_bytes": bytes_,
            "peak_bytes_planned": expected.bytes - expected.memory["reserved"],
        }

    def _stepper(self, model: Any, micro: int) -> Callable[[], None]:
        optimizer = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], lr=1e-4, fused=True)
        vocabulary, parts = model.config.vocab_size, self.batch // micro

        def step() -> None:
            ids = torch.randint(0, vocabulary, (self.batch, self.length), device=self.device)
            for rows in ids.split(micro):
                with torch.autocast(self.device.type, torch.bfloat16):
                    loss = model(input_ids=rows, labels=rows).loss / parts
                loss.backward()
            optimizer.step()
            optimizer.zero_grad()

        return step

    def _time(self, step: Callable[[], None]) -> tuple[list[float], float]:
        """(seconds of a step by window, bytes at the peak)."""
        for _ in range(self.warm):
            step()
        forget_peak(self.device)
        marks = [now(self.device)]
        for _ in range(self.windows):
            for _ in range(self.window):
                step()
            marks.append(now(self.device))
        return [(end - start) / self.window for start, end in pairwise(marks)], peak(self.device)
