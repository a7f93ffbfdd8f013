#!/usr/bin/env bash
# transformers 5.5.4: resize_token_embeddings ties the head of a T5 whose head is not tied, and the trained head is lost without a word.
#
# A T5 of the 1.1 kind (flan-T5, mT5) has an lm_head of its own. from_pretrained keeps it, although the config of a T5 says
# tie_word_embeddings=True whatever was given. Adding tokens then ties the weights by that config: lm_head becomes the table.
#
# For us: mangakd resizes no model, and its loader keeps the head (mangakd/models/seq2seq.py). Exits with 1 where the behaviour has changed.
# Seen: after loading "own head: True, equal to the saved head: True"; after resizing "own head: False, equal to the saved head: False".
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet torch==2.13.0 transformers==5.5.4
HF_HUB_OFFLINE=1 "$folder/venv/bin/python" - "$folder/model" <<'PYTHON'
import sys

import torch
from transformers import AutoModelForSeq2SeqLM, T5Config, T5ForConditionalGeneration

torch.manual_seed(0)
config = T5Config(
    vocab_size=64, d_model=16, d_kv=8, d_ff=32, num_layers=1, num_heads=2, feed_forward_proj="gated-gelu",
    tie_word_embeddings=False, decoder_start_token_id=0,
)
model = T5ForConditionalGeneration(config)
model.lm_head.weight = torch.nn.Parameter(torch.randn(64, 16))
model.save_pretrained(sys.argv[1])
saved = model.lm_head.weight.detach().clone()


def seen(model):
    head, table = model.lm_head.weight, model.get_input_embeddings().weight
    return f"own head: {head is not table and not torch.equal(head, table)}, equal to the saved head: {torch.equal(head[:64], saved)}"


model = AutoModelForSeq2SeqLM.from_pretrained(sys.argv[1])
loaded = seen(model)
model.resize_token_embeddings(72, mean_resizing=False)
resized = seen(model)
print(f"config says tie_word_embeddings={model.config.tie_word_embeddings}\nloaded:  {loaded}\nresized: {resized}")
assert loaded == "own head: True, equal to the saved head: True"
assert resized == "own head: False, equal to the saved head: False"
PYTHON
