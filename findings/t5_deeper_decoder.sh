#!/usr/bin/env bash
# transformers 5.5.4, torch 2.13.0: `generate` of a T5 whose decoder has more layers than its encoder fails with the cache, which it
# makes as deep as the encoder; the forward pass and use_cache=False are right, and a decoder with fewer layers works. Output seen:
#   encoder 1, decoder 3: cached IndexError: list index out of range  without cache [9, 9, 9, 9]
#   encoder 3, decoder 1: cached [0, 0, 0, 0]  without cache [0, 0, 0, 0]
# For us: mangakd/models/seq2seq_writer.py hands `generate` a cache of its own. Exits with 1 where the behaviour has changed.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install -q torch==2.13.0 transformers==5.5.4
"$folder/venv/bin/python" - <<'PY' 2>/dev/null
import sys

import torch
from transformers import AutoModelForSeq2SeqLM, T5Config


def texts(encoder, decoder):
    torch.manual_seed(0)
    config = T5Config(
        vocab_size=12, d_model=16, d_kv=8, d_ff=24, num_layers=encoder, num_decoder_layers=decoder, num_heads=2,
        decoder_start_token_id=0, pad_token_id=0, eos_token_id=None,
    )  # fmt: skip
    model = AutoModelForSeq2SeqLM.from_config(config).eval()
    each = []
    for cached in (True, False):
        try:
            ids = model.generate(torch.tensor([[3, 4, 5]]), max_new_tokens=4, use_cache=cached, do_sample=False)
            each.append(ids[0, 1:].tolist())
        except Exception as error:
            each.append(f"{type(error).__name__}: {str(error).splitlines()[0]}")
    print(f"encoder {encoder}, decoder {decoder}: cached {each[0]}  without cache {each[1]}")
    return each


deep, shallow = texts(1, 3), texts(3, 1)
sys.exit(0 if isinstance(deep[0], str) and isinstance(deep[1], list) and shallow[0] == shallow[1] else 1)
PY
