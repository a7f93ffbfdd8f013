"""Plans of encoder–decoders: the encoder reads sources, the decoder targets, and the head runs on targets alone."""

from dataclasses import replace

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode
from transformers import AutoConfig, AutoModelForSeq2SeqLM

from mangakd.core.errors import UserError
from mangakd.planning.job import Job, Machine
from mangakd.planning.memory import activations, logits
from mangakd.planning.plan import estimate
from mangakd.planning.sizes import Decoder, Model

T5 = {
    "model_type": "t5", "vocab_size": 90, "d_model": 32, "d_kv": 8, "d_ff": 64, "num_layers": 2, "num_decoder_layers": 3,
    "num_heads": 4, "decoder_start_token_id": 0,
}  # fmt: skip
BART = {
    "model_type": "bart", "vocab_size": 90, "d_model": 32, "encoder_layers": 2, "decoder_layers": 3,
    "encoder_attention_heads": 4, "decoder_attention_heads": 4, "encoder_ffn_dim": 64, "decoder_ffn_dim": 96,
    "pad_token_id": 1, "bos_token_id": 0, "eos_token_id": 2, "decoder_start_token_id": 2, "forced_eos_token_id": 2,
}  # fmt: skip
CPU = Machine("cpu", 32, {"fp32": 1.0}, 50, mfu=(0.3, 0.9), accelerator="cpu")
SOURCE, TARGET = 13, 7
JOB = Job("rewrite", 1000, 2, batch=3, length=SOURCE + TARGET, target=TARGET, teacher="none", precision="32-true")


def sized(sizes):
    return Model.from_sizes(sizes, "student", "tokens", "student.sizes")


def built(sizes, **changes):
    torch.manual_seed(0)
    return AutoModelForSeq2SeqLM.from_config(AutoConfig.for_model(**sizes | changes), attn_implementation="eager")


def test_counts_by_hand():
    model = sized(T5)
    square, forward = 32 * 32, 2 * 32 * 64
    assert model.matrices == 2 * (4 * square + forward)
    assert model.decoder == Decoder(3 * (6 * square + forward), 3 * 2 * square, 3, 64)
    assert (model.layers, model.depth, model.head, model.outputs) == (2, 5, 90 * 32, 90)
    # 13 · (2 · (16,384 + 6,144) + 4 · 32 · 13 · 2) + 7 · (2 · (30,720 + 2,880) + 4 · 32 · 20 · 3)
    assert model.forward_flops(1, 20, 7) == 1_153_152
    three = model.times(3)
    assert three.forward_flops(2, 20, 7) == 6 * 1_153_152 and three.depth == 15 and three.layer == model.layer


@pytest.mark.parametrize("sizes", [T5, {**T5, "feed_forward_proj": "gated-gelu"}, BART])
def test_flops_and_parameters_are_those_of_the_real_model(sizes):
    real, model = built(sizes), sized(sizes)
    assert model.parameters == sum(p.numel() for p in real.parameters())
    source, target = torch.randint(3, 90, (3, SOURCE)), torch.randint(3, 90, (3, TARGET))
    with FlopCounterMode(display=False) as counter:
        real(input_ids=source, attention_mask=torch.ones_like(source), decoder_input_ids=target)
    assert model.forward_flops(3, SOURCE + TARGET, TARGET) == pytest.approx(counter.get_total_flops(), rel=0.005)


@pytest.mark.parametrize(("source", "target"), [(64, 16), (16, 64)])
@pytest.mark.parametrize("sizes", [T5, {**T5, "feed_forward_proj": "gated-gelu"}])
def test_activations_are_those_that_autograd_keeps(sizes, source, target):
    """The layers alone: the difference between 3 and 1 layers of each stack."""
    job = replace(JOB, batch=2, length=source + target, target=target)

    def size(count):
        own = {**sizes, "num_layers": count, "num_decoder_layers": count}
        planned = activations(sized(own), CPU, job)
        return _kept(built(own).train(), job, source, target), planned

    (more, most), (less, least) = size(3), size(1)
    assert most - least == pytest.approx(more - less, rel=0.2)


def _kept(real, job, source, target):
    own, seen = {p.untyped_storage().data_ptr() for p in real.parameters()}, {}

    def pack(tensor):
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in own:
            seen[storage.data_ptr()] = tensor  # held, so that no address is used twice
        return tensor

    ids, decoder = torch.randint(3, 90, (job.batch, source)), torch.randint(3, 90, (job.batch, target))
    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        real(input_ids=ids, attention_mask=torch.ones_like(ids), decoder_input_ids=decoder)
    return sum(tensor.untyped_storage().nbytes() for tensor in seen.values())


def test_logits_are_those_of_targets():
    assert logits(sized(T5), JOB) == 90 * 3 * TARGET * (4 + 4 + 4 + 4)


@pytest.mark.parametrize("target", [0, 20])
def test_target_tokens_that_do_not_fit_are_named(target):
    with pytest.raises(UserError, match=f"has {target} target tokens of 20: .*workload.target"):
        estimate(sized(T5), None, CPU, replace(JOB, target=target))
    llama = Model.from_sizes({"model_type": "llama", "vocab_size": 90, "hidden_size": 32, "num_hidden_layers": 2,
                              "num_attention_heads": 4, "intermediate_size": 64}, "llama", "tokens", "student.sizes")  # fmt: skip
    with pytest.raises(UserError, match="others need 0"):
        estimate(llama, None, CPU, JOB)
