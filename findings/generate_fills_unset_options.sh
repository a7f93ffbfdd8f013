#!/usr/bin/env bash
# transformers 5.5.4, torch 2.13.0: options that are left out of the GenerationConfig handed to `generate` are filled with those of
# model.generation_config, without a word. So GenerationConfig(do_sample=False), which reads as plain greedy decoding, keeps the
# repetition penalty and the minimum length that the model's folder brings (Qwen2's and others have them). Output seen:
#   plain greedy, step by step:         [3, 3, 3, 3, 3, 3]
#   GenerationConfig(do_sample=False):  [3, 5, 9, 9, 9, 9]
#   the same, the model's own cleared:  [3, 3, 3, 3, 3, 3]
# For us: mangakd/models/generation.py replaces model.generation_config while a text is written. Exits with 1 where the behaviour
# has changed.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install -q torch==2.13.0 transformers==5.5.4
"$folder/venv/bin/python" - <<'PY' 2>/dev/null
import sys

import torch
from transformers import AutoModelForCausalLM, GenerationConfig, LlamaConfig

sizes = dict(hidden_size=16, intermediate_size=24, num_hidden_layers=2, num_attention_heads=2, num_key_value_heads=2)
torch.manual_seed(0)
model = AutoModelForCausalLM.from_config(LlamaConfig(vocab_size=10, tie_word_embeddings=True, eos_token_id=None, **sizes)).eval()
with torch.no_grad():
    for weight in model.parameters():
        weight.mul_(8 if weight.dim() > 1 else 1)
ids, greedy = torch.tensor([[1, 2]]), []
with torch.no_grad():
    for _ in range(6):
        greedy.append(int(model(torch.cat([ids, torch.tensor([greedy]).long()], 1)).logits[0, -1].argmax()))


def written():
    options = GenerationConfig(do_sample=False, max_new_tokens=6)
    return model.generate(ids, attention_mask=torch.ones_like(ids), generation_config=options)[0, 2:].tolist()


model.generation_config.repetition_penalty = 5.0
filled = written()
model.generation_config = GenerationConfig()
cleared = written()
print("plain greedy, step by step:        ", greedy)
print("GenerationConfig(do_sample=False): ", filled)
print("the same, the model's own cleared: ", cleared)
sys.exit(0 if filled != greedy and cleared == greedy else 1)
PY
