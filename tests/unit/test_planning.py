"""Plans: counts are those of the real models, arithmetic is that of the page, and what is advised was found to fit."""

import math
from dataclasses import replace

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode
from transformers import AutoConfig, AutoModelForCausalLM, AutoModelForSequenceClassification

from mangakd.core.errors import UserError
from mangakd.planning import table
from mangakd.planning.job import Job, Machine
from mangakd.planning.memory import activation_bytes, memory, states, trainable
from mangakd.planning.plan import estimate
from mangakd.planning.sizes import Model

BERT = {"vocab_size": 90, "hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 64}
LLAMA = {**BERT, "num_key_value_heads": 2}
DISTILBERT = {"vocab_size": 90, "dim": 32, "n_layers": 2, "n_heads": 4, "hidden_dim": 64}
TINY = [
    ("bert", "labels", BERT),
    ("distilbert", "labels", DISTILBERT),
    ("albert", "labels", {**BERT, "embedding_size": 16}),
    ("llama", "tokens", LLAMA),
    ("llama", "tokens", {**LLAMA, "tie_word_embeddings": True}),
    ("bert", "score", {**BERT, "num_labels": 1}),
]
GPU = Machine("gpu", 80, {"fp32": 20.0, "bf16": 300.0}, 2000, mfu=(0.25, 0.5))
CPU = replace(GPU, name="cpu", accelerator="cpu")
JOB = Job("intent", 1000, 2, batch=64, length=64, teacher="none")
LLAMA_8B = {
    "model_type": "llama", "vocab_size": 128256, "hidden_size": 4096, "num_hidden_layers": 32, "num_attention_heads": 32,
    "num_key_value_heads": 8, "intermediate_size": 14336,
}  # fmt: skip


@pytest.fixture(scope="module")
def base():
    return Model.from_sizes({"model_type": "bert"}, "BERT base", "labels", "student.sizes")


@pytest.fixture(scope="module")
def llama():
    return Model.from_sizes(LLAMA_8B, "Llama 3 8B", "tokens", "student.sizes")


def built(kind, sizes, head):
    torch.manual_seed(0)
    auto = AutoModelForCausalLM if head == "tokens" else AutoModelForSequenceClassification
    config = AutoConfig.for_model(kind, **sizes)
    return auto.from_config(config), Model.from_config(config, kind, head, "student.path")


@pytest.mark.parametrize(("kind", "head", "sizes"), TINY)
def test_parameters_are_those_of_the_real_model(kind, head, sizes):
    real, sized = built(kind, sizes, head)
    assert sized.parameters == sum(p.numel() for p in real.parameters())


@pytest.mark.parametrize(("kind", "head", "sizes"), TINY)
def test_flops_are_those_that_torch_counts(kind, head, sizes):
    real, sized = built(kind, sizes, head)
    real.set_attn_implementation("eager")  # torch counts matrix products, not the CPU's fused attention
    tokens = torch.randint(1, 90, (3, 20))
    with FlopCounterMode(display=False) as counter:
        output = real(input_ids=tokens, attention_mask=torch.ones_like(tokens))
    near = 0.03 if kind == "albert" else 0.005  # the projection of its small embeddings is counted once a text
    assert sized.forward_flops(3, 20) == pytest.approx(counter.get_total_flops(), rel=near)
    with FlopCounterMode(display=False) as counter:
        output.logits.sum().backward()
    assert 2 * sized.forward_flops(3, 20) == pytest.approx(counter.get_total_flops(), rel=near)


def test_an_ensemble_is_its_members_one_after_another():
    _, one = built("bert", BERT, "labels")
    three = one.times(3)
    assert three.parameters == 3 * one.parameters and three.layer == one.layer
    assert three.forward_flops(4, 16) == 3 * one.forward_flops(4, 16)


def test_lora_counts_both_factors_of_every_matrix():
    _, sized = built("bert", BERT, "labels")
    # Each layer: query, key, value, output 32→32; 32→64; 64→32. The classifier's pooler and head learn too, with biases.
    each = 4 * (32 + 32) + 2 * (32 + 64)
    assert trainable(sized, replace(JOB, lora=3)) == 3 * 2 * each + 32 * 32 + 32 + 32 * 2 + 2


@pytest.mark.parametrize("precision", ["32-true", "bf16-mixed", "bf16-true"])
@pytest.mark.parametrize(("kind", "head", "sizes"), [TINY[0], TINY[1], TINY[3]])
def test_activations_are_those_that_autograd_keeps(kind, head, sizes, precision):
    """Layers alone: the difference between 3 layers and 1. Weights, and their bf16 copies, are not activations."""
    job = replace(JOB, batch=2, length=64, precision=precision)

    def size(layers):
        real, sized = built(kind, {**sizes, "n_layers" if kind == "distilbert" else "num_hidden_layers": layers}, head)
        real = real.to(torch.bfloat16) if precision == "bf16-true" else real
        copies = 2 * sized.matrices if precision == "bf16-mixed" else 0
        return kept_by_autograd(real.train(), job) - copies, activation_bytes(sized, CPU, job)

    (more, each), (less, _) = size(3), size(1)
    assert each == pytest.approx((more - less) / 2 / job.tokens, rel=0.2)


def kept_by_autograd(real, job):
    own = {p.untyped_storage().data_ptr() for p in real.parameters()}
    seen = {}

    def pack(tensor):
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in own:
            seen[storage.data_ptr()] = tensor  # held, so that no address is used twice
        return tensor

    tokens = torch.randint(1, 90, (job.batch, job.length))
    mixed = torch.autocast("cpu", torch.bfloat16, enabled=job.precision == "bf16-mixed")
    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor), mixed:
        real(input_ids=tokens, attention_mask=torch.ones_like(tokens))
    return sum(tensor.untyped_storage().nbytes() for tensor in seen.values())


def test_a_small_plan_by_hand():
    """1,000 parameters, 2 layers of 4, batches of 2 texts of 3 tokens, on 1 MFLOP/s without other limits."""
    model = Model("small", parameters=1000, outside=200, matrices=700, head=20, adapter=30, whole=20, layers=2, hidden=4, heads=2,
                  keys=2, head_size=2, intermediate=8, gated=False, outputs=5, per_token=False)  # fmt: skip
    machine = Machine("slow", 1e-3, {"fp32": 1e-6}, math.inf, mfu=(0.5, 1.0), usd_per_hour=3600, launch_us=(0, 0),
                      reserved_gb=0, texts_per_s=math.inf)  # fmt: skip
    job = Job("x", 20, 3, batch=2, length=3, precision="32-true", teacher="none", eval_examples=4)
    found = estimate(model, None, machine, job)
    parts = {name: size for name, size in found.memory.items() if size}
    # Kept for a token in a layer: 4 bytes · (2·4 inputs + 4·4 attention + 2·8 GELU) + LayerNorms 2·4·4 + masks 2·4.
    # Gradients of one layer's activations: 6 tokens · 4 bytes · (4·4 + 2·8) = 768. Logits: 2·5 cells of 16 bytes.
    assert parts == {
        "weights": 4000, "gradients": 4000, "optimizer": 8000, "activations": 6 * 2 * 200 + 768,
        "logits and losses": 160,
    }  # fmt: skip
    # Forward: 6 tokens · (2·700 + 4·3·4·2 of attention) + 2 texts · 2·20 of the head; backward is two of these.
    assert found.flops == {"student": 3 * (6 * (1400 + 96) + 80), "teacher": 0}
    assert found.step == pytest.approx((0.027168, 0.054336))
    # 10 steps and 4 of 20 examples forward: 10 · (1 + 4/20 · 1/3) steps an epoch. A dollar a second.
    assert found.total == pytest.approx((3 * 10 * 16 / 15 * 0.027168, 3 * 10 * 16 / 15 * 0.054336))
    assert found.usd == pytest.approx(found.total)
    assert (found.bottleneck, found.fits) == ("compute", True)


@pytest.mark.parametrize("precision", ["32-true", "bf16-mixed", "16-mixed", "bf16-true"])
def test_a_trained_parameter_takes_sixteen_bytes(base, precision):
    assert sum(states(base, replace(JOB, precision=precision)).values()) == 16 * base.parameters


def test_both_kinds_of_16_bits_need_the_same(base):
    def plan(precision):
        return estimate(base, base, GPU, replace(JOB, precision=precision, teacher="replicated"))

    assert plan("16-mixed").memory == plan("bf16-mixed").memory
    assert plan("16-mixed").total == plan("bf16-mixed").total


LARGER = {
    "batch": {"batch": 128},
    "length": {"length": 128},
    "precision": {"precision": "32-true"},
    "hidden states": {"hidden_pairs": 4},
    "attention": {"attention_pairs": 4},
    "a teacher": {"teacher": "replicated"},
    "a longer batch than the others": {"longest": 128},
}
SMALLER = {"checkpointing": {"checkpointing": True}, "LoRA": {"lora": 8}}


@pytest.mark.parametrize("change", LARGER.values(), ids=LARGER)
def test_what_takes_more_memory(base, change):
    assert total(base, replace(JOB, **change)) > total(base, JOB)


@pytest.mark.parametrize("change", SMALLER.values(), ids=SMALLER)
def test_what_takes_less_memory(base, change):
    assert total(base, replace(JOB, **change)) < total(base, JOB)


def test_accumulation_takes_no_memory_and_sharding_divides_it(base):
    assert total(base, replace(JOB, accumulation=4)) == total(base, JOB)
    four = replace(GPU, devices=4, strategy="fsdp")
    whole, share = (memory(base, None, machine, JOB) for machine in (GPU, four))
    assert all(share[part] == whole[part] / 4 for part in ("weights", "gradients", "optimizer"))


def total(model, job):
    return sum(memory(model, model, GPU, job).values())


def test_what_takes_more_time(base):
    def seconds(**change):
        return estimate(base, base, GPU, replace(JOB, **change)).total

    least = seconds()
    for change in (
        {"epochs": 3}, {"examples": 1500}, {"length": 128}, {"eval_examples": 500}, {"teacher": "replicated"},
        {"checkpointing": True}, {"precision": "32-true"},
    ):  # fmt: skip
        assert all(more > less for more, less in zip(seconds(**change), least, strict=True)), change
    assert seconds(teacher="cached") == pytest.approx(least, rel=0.01)
    assert seconds(longest=512) == least  # one long batch is no matter


def test_several_devices_talk(base):
    link = {"devices": 2, "link_gb_s": 0.01}
    for strategy in ("ddp", "fsdp"):
        found = estimate(base, None, replace(GPU, strategy=strategy, **link), JOB)
        assert found.bottleneck == "communication"
    assert estimate(base, None, GPU, JOB).causes["communication"] == (0, 0)


def test_every_device_has_its_price(base):
    dear = replace(GPU, usd_per_hour=2.0)
    four = replace(dear, devices=4, strategy="ddp")
    assert (dear.hourly, four.hourly) == (2.0, 8.0)
    found = estimate(base, None, four, JOB)
    assert found.usd == pytest.approx([seconds / 3600 * 8 for seconds in found.total])


def test_where_nothing_helps_it_says_so(llama):
    found = estimate(llama, None, replace(CPU, memory_gb=8), replace(JOB, precision="32-true"))
    assert not found.fits and "smaller student" in found.advice[0]


def test_soft_targets_of_a_vocabulary_take_gigabytes(llama):
    job = replace(JOB, batch=8, length=512, teacher="replicated", teacher_dtype="bfloat16")
    parts = memory(llama, llama, GPU, job)
    cells = 8 * 512 * 128_256
    assert parts["logits and losses"] == cells * ((2 + 4 + 6) + (2 + 12))
    hard = memory(llama, llama, GPU, replace(job, soft_targets=False))
    assert hard["logits and losses"] == cells * 12


def test_tables_are_labelled_and_say_what_does_not_fit(llama):
    job = replace(JOB, batch=8, length=512)
    plans = [estimate(llama, None, replace(GPU, name=name, devices=n, strategy=kind), job)
             for name, n, kind in (("alone", 1, "one"), ("eight", 8, "fsdp"))]  # fmt: skip
    text = table.one(plans[0])
    assert text.startswith(table.LABEL)
    for part in ("does NOT fit", "LoRA of rank 16", "assumptions", "likely bottleneck", "no price", "8.03B"):
        assert part in text
    side = table.compare(plans)
    assert side.startswith(table.LABEL)
    assert side.splitlines()[2].split() == ["alone", "eight"]
    assert side.count("NO") == 1 and "alone: " in side


@pytest.mark.parametrize(
    ("seconds", "shown"),
    [((0.004, 0.02), "4–20 ms"), ((30, 90), "30 s–1.5 min"), ((7200, 10800), "2–3 h"), ((1e6, 1e6), "12 days")],
)
def test_durations(seconds, shown):
    assert table.between(seconds, table.duration) == shown


def test_mistakes_are_named(base):
    with pytest.raises(UserError, match=r"student\.sizes=.*Unrecognized"):
        Model.from_sizes({"model_type": "brt"}, "x", "labels", "student.sizes")
    with pytest.raises(UserError, match=r"task\.kind=vision is unknown"):
        Model.from_sizes({"model_type": "bert"}, "x", "vision", "student.sizes")
    with pytest.raises(UserError, match=r"precision=bf16 is unknown"):
        replace(JOB, precision="bf16")
    with pytest.raises(UserError, match=r"'batch': 0"):
        replace(JOB, batch=0)
    with pytest.raises(UserError, match=r"strategy=one with devices=2"):
        replace(GPU, devices=2)
    with pytest.raises(UserError, match=r"replicated teacher but no sizes"):
        estimate(base, None, GPU, replace(JOB, teacher="replicated"))
