#!/usr/bin/env bash
# transformers 5.5.4, torch 2.13.0: a model whose config caps its attention scores (attn_logit_softcapping of Gemma 2) is loaded with
# SDPA by default, and SDPA leaves the cap out without a word: the default logits are those of a model without the cap. Output seen:
#   attention chosen by default: sdpa
#   sdpa, with the cap beside without: 0.000000
#   eager, with the cap beside without: 0.625
#   with the cap, sdpa beside eager: 0.625
# For us: mangakd/models/attention.py (keep_soft_cap) attends eagerly. Exits with 1 where the behaviour has changed.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install -q torch==2.13.0 transformers==5.5.4
"$folder/venv/bin/python" - <<'PY' 2>/dev/null
import sys

import torch
from transformers import AutoModelForCausalLM, Gemma2Config

sizes = dict(hidden_size=16, intermediate_size=24, num_hidden_layers=2, num_attention_heads=2, num_key_value_heads=1, head_dim=8)
config = Gemma2Config(vocab_size=100, pad_token_id=0, query_pre_attn_scalar=1, attn_logit_softcapping=2.0, **sizes)
torch.manual_seed(0)
capped = AutoModelForCausalLM.from_config(config).eval()
with torch.no_grad():
    for weight in capped.parameters():
        weight.mul_(8 if weight.dim() > 1 else 1)
config.attn_logit_softcapping = None
plain = AutoModelForCausalLM.from_config(config).eval()
plain.load_state_dict(capped.state_dict())
print("attention chosen by default:", capped.config._attn_implementation)
ids, logits = torch.arange(1, 12)[None], {}
with torch.no_grad():
    for name in ("sdpa", "eager"):
        for kind, model in (("capped", capped), ("plain", plain)):
            model.set_attn_implementation(name)
            logits[name, kind] = model(ids).logits
apart = {name: float((logits[name, "capped"] - logits[name, "plain"]).abs().max()) for name in ("sdpa", "eager")}
print(f"sdpa, with the cap beside without: {apart['sdpa']:.6f}")
print(f"eager, with the cap beside without: {apart['eager']:.3f}")
print(f"with the cap, sdpa beside eager: {float((logits['sdpa', 'capped'] - logits['eager', 'capped']).abs().max()):.3f}")
sys.exit(0 if apart["sdpa"] == 0 and apart["eager"] > 0.01 else 1)
PY
