#!/usr/bin/env bash
# xllamacpp 2026.10.11549 (llama.cpp's server), gguf 0.19.0: /completion with n_probs and n_predict=1 leaves completion_probabilities
# out where the token ends in the middle of a character, with status 200 and the token in "tokens"; the README of the server promises
# the n_probs most probable tokens for each generated token. Output seen (the model gives every token the same probability):
#   forced token "a": status 200, tokens [3], probabilities of 1 token
#   forced token <byte C3>, the first half of "é": status 200, tokens [4], completion_probabilities is missing
# For us: mangakd/export/language/llama_engine.py then forces a whole character and reads the token out of the whole vocabulary.
# Exits with 1 where the behaviour has changed.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install -q gguf==0.19.0 xllamacpp==2026.10.11549
"$folder/venv/bin/python" - "$folder/model.gguf" <<'PY' 2>/dev/null
import json
import sys
import urllib.request

import numpy as np
import xllamacpp
from gguf import GGUFWriter, TokenType

size, tokens = 32, ["<unk>", "<s>", "</s>", "a", "<0xC3>", "<0xA9>"]
kinds = [TokenType.UNKNOWN, TokenType.CONTROL, TokenType.CONTROL, TokenType.NORMAL, TokenType.BYTE, TokenType.BYTE]
writer = GGUFWriter(sys.argv[1], "llama")
writer.add_vocab_size(len(tokens))
writer.add_context_length(64)
writer.add_embedding_length(size)
writer.add_block_count(1)
writer.add_feed_forward_length(size)
writer.add_head_count(1)
writer.add_layer_norm_rms_eps(1e-5)
writer.add_rope_dimension_count(size)
writer.add_tokenizer_model("llama")
writer.add_token_list(tokens)
writer.add_token_scores([0.0] * len(tokens))
writer.add_token_types([int(kind) for kind in kinds])
writer.add_bos_token_id(1)
writer.add_eos_token_id(2)
writer.add_unk_token_id(0)
writer.add_tensor("token_embd.weight", np.zeros((len(tokens), size), np.float16))
writer.add_tensor("output_norm.weight", np.ones(size, np.float32))
for name in ("attn_norm", "ffn_norm"):
    writer.add_tensor(f"blk.0.{name}.weight", np.ones(size, np.float32))
for name in ("attn_q", "attn_k", "attn_v", "attn_output", "ffn_gate", "ffn_up", "ffn_down"):
    writer.add_tensor(f"blk.0.{name}.weight", np.zeros((size, size), np.float16))
writer.write_header_to_file()
writer.write_kv_data_to_file()
writer.write_tensors_to_file()
writer.close()

params = xllamacpp.CommonParams()
params.model.path, params.n_ctx, params.n_parallel, params.port, params.verbosity = sys.argv[1], 64, 1, 0, 0
server = xllamacpp.Server(params)
present = []
for token, words in ((3, '"a"'), (4, '<byte C3>, the first half of "é"')):
    body = {"prompt": [1, 3], "n_predict": 1, "n_probs": 3, "temperature": 0, "return_tokens": True, "logit_bias": [[token, 1e4]]}
    request = urllib.request.Request(
        f"{server.listening_address}/completion", json.dumps(body).encode(), {"Content-Type": "application/json"}
    )
    with urllib.request.urlopen(request) as response:
        answer = json.loads(response.read())
    probabilities = answer.get("completion_probabilities")
    what = "completion_probabilities is missing" if probabilities is None else f"probabilities of {len(probabilities)} token"
    print(f"forced token {words}: status {response.status}, tokens {answer['tokens']}, {what}")
    present.append(probabilities is not None)
sys.exit(0 if present == [True, False] else 1)
PY
