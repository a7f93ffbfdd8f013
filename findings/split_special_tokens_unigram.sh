#!/usr/bin/env bash
# transformers 5.5.4, tokenizers 0.22.2: split_special_tokens=True does not make a Unigram tokenizer (XLM-R, T5, ALBERT,
# DeBERTa-v3) read a special token that is written in a text as text. The option takes special tokens out of the list of added
# tokens; but the Unigram model still has `</s>` among its pieces, and its score makes that piece the best split.
# Byte-level BPE is as the option says. Output seen:
#   unigram: a </s> b -> ['▁a', '▁', '</s>', '▁b']
#   bpe: a </s> b -> ['a', 'Ġ', '<', '/', 's', '>', 'Ġ', 'b']
# For us: mangakd/runtime/tokenise.py, read_as_text. Exits with 1 where the behaviour has changed.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install -q transformers==5.5.4 tokenizers==0.22.2
"$folder/venv/bin/python" - <<'PY' 2>/dev/null
import sys

from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast

letters = sorted(set("ab</s>"))
pieces = [("<unk>", 0.0), ("</s>", 0.0), ("▁", -2.0), ("▁a", -2.0), ("▁b", -2.0), *((letter, -3.0) for letter in letters)]
unigram = Tokenizer(models.Unigram(pieces, unk_id=0))
unigram.pre_tokenizer = pre_tokenizers.Metaspace()
alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
bpe = Tokenizer(models.BPE({token: i for i, token in enumerate(["<unk>", "</s>", *alphabet])}, []))
bpe.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
found = {}
for name, made in (("unigram", unigram), ("bpe", bpe)):
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=made, eos_token="</s>", unk_token="<unk>", split_special_tokens=True)
    found[name] = tokenizer.tokenize("a </s> b")
    print(f"{name}: a </s> b -> {found[name]}")
sys.exit(0 if "</s>" in found["unigram"] and "</s>" not in found["bpe"] else 1)
PY
