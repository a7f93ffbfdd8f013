"""Memory and time of the loss of next tokens in chunks, beside the same loss on whole logits.

    python benchmarks/chunked.py [--rounds 5]

1. loss: cross-entropy + forward KL (alpha 0.9) to a teacher's states, with gradients of states and head: 2,048 tokens, V 32,000.
2. large: the same in chunks alone: 8,192 tokens, V 128,256. Whole logits would need 32 GB (eight buffers of P · V numbers).
3. step: a training step of a Llama of 8 layers with the loss in chunks, beside a step with cross-entropy on whole logits (no
   teacher): with a stored top-k and with stored states of a wider teacher.

Each side runs in a process of its own, in one thread. The sides take turns, and each round reverses their order. Time is CPU time
of the process, and a ratio is of medians. Memory is the peak of the process (resource usage) less the peak before the loss.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import torch
import transformers
from results_file import table, write
from torch import Tensor
from torch.nn import functional as F

from mangakd.core.token_logits import FromStates, LmHead, TokenLogits, TopK
from mangakd.losses.chunked import Terms, token_terms
from mangakd.losses.token_divergence import forward_kl

ALPHA, WIDTH, TEACHER_WIDTH, K = 0.9, 512, 768, 64
SMALL, LARGE = (2048, 32_000), (8192, 128_256)  # tokens, vocabulary
TEXTS, LENGTH = 4, 256  # of a training step
MB = 1e6


def random_head(vocabulary: int, width: int, seed: int) -> LmHead:
    generator = torch.Generator().manual_seed(seed)
    return LmHead(torch.randn(vocabulary, width, generator=generator).mul_(2 * width**-0.5))


def inputs(tokens: int, vocabulary: int, width: int, teacher_width: int) -> tuple[FromStates, FromStates, Tensor]:
    """Student, teacher and target tokens."""
    generator = torch.Generator().manual_seed(0)
    own, other = (torch.randn(tokens, each, generator=generator) for each in (width, teacher_width))
    targets = torch.randint(vocabulary, (tokens,), generator=generator)
    student = FromStates(own.requires_grad_(), random_head(vocabulary, width, 1))
    student.head.weight.requires_grad_()
    return student, FromStates(other, random_head(vocabulary, teacher_width, 2)), targets


def whole(student: FromStates, teacher: FromStates, targets: Tensor) -> Tensor:
    """As it is commonly written, on logits (P, V)."""
    log_q = F.log_softmax(student.states @ student.head.weight.T, -1)
    with torch.no_grad():
        log_p = F.log_softmax(teacher.states @ teacher.head.weight.T, -1)
    hard = F.nll_loss(log_q, targets, reduction="sum")
    soft = F.kl_div(log_q, log_p, reduction="sum", log_target=True)
    return (1 - ALPHA) * hard + ALPHA * soft


def chunked(student: FromStates, teacher: TokenLogits, targets: Tensor) -> Tensor:
    return token_terms(student, targets, teacher, Terms(ALPHA, 1.0, forward_kl, student.head.vocabulary))[0]


def in_bf16(student: FromStates, teacher: FromStates, targets: Tensor) -> Tensor:
    """The matrix products as under autocast."""
    sides = (replace(each, head=replace(each.head, dtype=torch.bfloat16)) for each in (student, teacher))
    return chunked(*sides, targets)


def of_loss(loss: Callable[..., Tensor], size: tuple[int, int], widths: tuple[int, int]) -> dict[str, Any]:
    """CPU seconds, the peak and the gradients' checksums of one pass forward and backward."""
    loss(*inputs(8, 100, 16, 16)).backward()  # libraries and their buffers
    given = inputs(*size, *widths)
    before, start = peak(), time.process_time()
    value = loss(*given)
    value.backward()
    student = given[0]
    gradients = [student.states.grad, student.head.weight.grad]
    return {
        "seconds": time.process_time() - start,
        "peak": peak() - before,
        "value": value.item(),
        "gradients": [float(each.double().square().sum().sqrt()) for each in gradients if each is not None],
    }


def of_step(kind: str, steps: int) -> dict[str, Any]:
    """CPU seconds of a training step: the median of `steps`, after two that are not counted."""
    vocabulary = SMALL[1]
    torch.manual_seed(0)
    config = transformers.LlamaConfig(
        vocab_size=vocabulary, hidden_size=WIDTH, intermediate_size=1376, num_hidden_layers=8, num_attention_heads=8,
        num_key_value_heads=8, tie_word_embeddings=True,
    )  # fmt: skip
    model = transformers.LlamaForCausalLM(config)
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-4, fused=True)
    ids = torch.randint(vocabulary, (TEXTS, LENGTH))
    targets = ids[:, 1:].flatten()
    states = torch.randn(len(targets), TEACHER_WIDTH)
    exact = FromStates(states, random_head(vocabulary, TEACHER_WIDTH, 2))
    answer = top_k(exact) if kind == "topk" else exact

    def step() -> float:
        start = time.process_time()
        hidden = model.model(input_ids=ids, use_cache=False).last_hidden_state[:, :-1].flatten(0, 1)
        if kind == "sft":
            value = F.cross_entropy(model.lm_head(hidden), targets)
        else:
            value = chunked(FromStates(hidden, LmHead(model.lm_head.weight)), answer, targets) / len(targets)
        value.backward()
        optimizer.step()
        optimizer.zero_grad()
        return time.process_time() - start

    times = [step() for _ in range(2 + steps)][2:]
    return {"seconds": statistics.median(times), "peak": peak()}


def top_k(exact: FromStates) -> TopK:
    """In parts, as a store is filled."""
    parts = []
    for states in exact.states.split(64):
        log_p = torch.log_softmax(exact.head.logits(states), -1)
        best, ids = log_p.topk(K)
        parts.append((ids, best, log_p.scatter(1, ids, -torch.inf).logsumexp(-1)))
    return TopK(*(torch.cat(each) for each in zip(*parts, strict=True)))


def peak() -> float:
    """Bytes; Linux gives kilobytes."""
    return 1024.0 * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss


SIDES: dict[str, Callable[[], dict[str, Any]]] = {
    "loss, whole logits": lambda: of_loss(whole, SMALL, (WIDTH, WIDTH)),
    "loss, chunks": lambda: of_loss(chunked, SMALL, (WIDTH, WIDTH)),
    "large, chunks": lambda: of_loss(chunked, LARGE, (WIDTH, WIDTH)),
    "loss, chunks, products in bf16": lambda: of_loss(in_bf16, SMALL, (WIDTH, WIDTH)),
    "step, cross-entropy on whole logits": lambda: of_step("sft", 3),
    "step, stored top-k in chunks": lambda: of_step("topk", 3),
    "step, stored states in chunks": lambda: of_step("states", 3),
}


def measure(side: str) -> dict[str, Any]:
    quiet = {"OMP_NUM_THREADS": "1", "OMP_WAIT_POLICY": "PASSIVE", "HF_HUB_OFFLINE": "1"}
    command = [sys.executable, __file__, "--side", side]
    process = subprocess.run(command, env={**os.environ, **quiet}, capture_output=True, text=True)
    if process.returncode != 0:
        raise SystemExit(f"{side} failed:\n{process.stderr[-3000:]}")
    return json.loads(process.stdout.strip().splitlines()[-1])


def median(rounds: list[dict[str, Any]], what: str) -> float:
    return statistics.median(each[what] for each in rounds)


def check_equal(one: dict[str, Any], other: dict[str, Any]) -> None:
    pairs = [(one["value"], other["value"]), *zip(one["gradients"], other["gradients"], strict=True)]
    apart = max(abs(a - b) / abs(b) for a, b in pairs)
    if apart > 1e-5:
        raise SystemExit(f"the two losses differ by a share of {apart:.2g}")


def lines(found: dict[str, list[dict[str, Any]]]) -> list[list[str]]:
    """Comparison, both seconds, ratio of time, its limit, both peaks, ratio of memory, its limit."""
    names = list(SIDES)
    pairs = [(1, 0, "0.90", "0.15"), (3, 0, "–", "–"), (5, 4, "1.02", "–"), (6, 4, "1.35", "–")]
    rows = []
    for side, base, slower, larger in pairs:
        both = [found[names[side]], found[names[base]]]
        seconds, peaks = ([median(each, what) for each in both] for what in ("seconds", "peak"))
        rows.append([
            f"{names[side]} / {names[base].removeprefix('loss, ').removeprefix('step, ')}",
            *(f"{each:.2f}" for each in seconds), f"{seconds[0] / seconds[1]:.3f}", slower,
            *(f"{each / MB:,.0f}" for each in peaks), f"{peaks[0] / peaks[1]:.3f}", larger,
        ])  # fmt: skip
    large = found[names[2]]
    rows.append([
        names[2], f"{median(large, 'seconds'):.2f}", "–", "–", "–", f"{median(large, 'peak') / MB:,.0f}", "–", "–", "1,400 MB",
    ])  # fmt: skip
    return rows


def report(found: dict[str, list[dict[str, Any]]]) -> None:
    """Write the complete rounds, so that a stopped measurement keeps them."""
    names = list(SIDES)
    rounds = found[names[0]]
    check_equal(found[names[1]][0], found[names[0]][0])
    header = ["", "CPU s", "CPU s", "ratio", "wanted", "peak MB", "peak MB", "ratio", "wanted"]
    body = f"""- `loss`: cross-entropy and forward KL (alpha {ALPHA}) with gradients; {SMALL[0]:,} tokens, V {SMALL[1]:,}, states
  of {WIDTH} numbers. `large`: the same for {LARGE[0]:,} tokens, V {LARGE[1]:,}. Peaks of both are without their inputs.
- `step`: a training step of a Llama of 8 layers of {WIDTH} numbers, V {SMALL[1]:,}, {TEXTS} texts of {LENGTH} tokens, beside the
  same step of plain fine-tuning. The store holds {K} tokens and the mass of all others, or states of {TEACHER_WIDTH} numbers.
  Peaks are of the process.
- Medians of {len(rounds)} rounds.

{table(header, lines(found))}
"""
    versions = {"torch": torch.__version__, "transformers": transformers.__version__}
    print(write("chunked", "The loss of next tokens in chunks", {"versions": versions, "rounds": found}, body))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--side", choices=SIDES)
    options = parser.parse_args()
    if options.side:
        torch.set_num_threads(1)
        print(json.dumps(SIDES[options.side]()))
        return
    found: dict[str, list[dict[str, Any]]] = {side: [] for side in SIDES}
    for number in range(options.rounds):
        for side in list(SIDES) if number % 2 == 0 else list(SIDES)[::-1]:
            found[side].append(measure(side))
            print(
                f"round {number + 1}: {side}: {found[side][-1]['seconds']:.2f} s, {found[side][-1]['peak'] / MB:,.0f} MB",
                flush=True,
            )
        report(found)


if __name__ == "__main__":
    main()
