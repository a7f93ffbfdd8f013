#!/usr/bin/env bash
# transformers 5.5.4, tokenizers 0.22.2: a tokenizer reads a query with an empty document as one text if it gets the two as
# strings, and as a pair if it gets them in lists: tokenizer("refund", "") has no second [SEP]. A cross-encoder that is trained
# or asked in batches, and checked pair by pair, scores an empty document differently. Output seen:
#   strings: ['[CLS]', 'refund', '[SEP]']
#   lists: ['[CLS]', 'refund', '[SEP]', '[SEP]']
# For us: mangakd/export/graph.py gives lists, and mangakd/runtime/tokenise.py pairs. Exits with 1 where the behaviour has changed.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install -q transformers==5.5.4 tokenizers==0.22.2
"$folder/venv/bin/python" - <<'PY' 2>/dev/null
import sys

from tokenizers import Tokenizer, models, pre_tokenizers, processors
from transformers import PreTrainedTokenizerFast

made = Tokenizer(models.WordLevel({"[CLS]": 0, "[SEP]": 1, "[UNK]": 2, "refund": 3}, "[UNK]"))
made.pre_tokenizer = pre_tokenizers.Whitespace()
made.post_processor = processors.TemplateProcessing(
    single="[CLS] $A [SEP]", pair="[CLS] $A [SEP] $B:1 [SEP]:1", special_tokens=[("[CLS]", 0), ("[SEP]", 1)]
)
tokenizer = PreTrainedTokenizerFast(tokenizer_object=made, cls_token="[CLS]", sep_token="[SEP]", unk_token="[UNK]")
strings = tokenizer("refund", "")["input_ids"]
lists = tokenizer(["refund"], [""])["input_ids"][0]
for name, ids in (("strings", strings), ("lists", lists)):
    print(f"{name}: {tokenizer.convert_ids_to_tokens(ids)}")
sys.exit(0 if len(strings) == 3 and len(lists) == 4 else 1)
PY
