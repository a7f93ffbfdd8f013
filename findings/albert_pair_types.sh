#!/usr/bin/env bash
# transformers 5.5.4: the tokenizer of an ALBERT folder gives no token_type_ids for a pair of texts; that of transformers 4.57.1
# gave them for the same folder. The class has no `model_input_names` of its own any more and takes the base class's, without
# types (XLNet and MPNet too). ALBERT has a table of types and takes its first row for both texts, so that a cross-encoder that
# was trained with types answers otherwise, without a word. Output seen:
#   4.57.1: token_type_ids [0, 0, 0, 0, 1, 1, 1]
#   5.5.4: token_type_ids None
#   5.5.4, model_input_names in tokenizer_config.json: token_type_ids [0, 0, 0, 0, 1, 1, 1]
# For us: mangakd/data/pairs.py follows the tokenizer; docs/reference/data.md has the entry that brings the types back. Exits with 1
# where the behaviour has changed.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cat > "$folder/read_pair.py" <<'PY'
import json
import sys
from pathlib import Path

from tokenizers import Tokenizer, models, pre_tokenizers, processors
from transformers import AutoTokenizer, __version__

folder, entries = Path(sys.argv[1]), json.loads(sys.argv[2])
words = ["<unk>", "<pad>", "[CLS]", "[SEP]", "[MASK]", "▁how", "▁much", "▁ten", "▁euros"]
made = Tokenizer(models.Unigram([(word, -1.0) for word in words], unk_id=0))
made.pre_tokenizer = pre_tokenizers.Metaspace()
marks = [("[CLS]", 2), ("[SEP]", 3)]
made.post_processor = processors.TemplateProcessing("[CLS] $A [SEP]", "[CLS] $A [SEP] $B:1 [SEP]:1", special_tokens=marks)
made.save(str(folder / "tokenizer.json"))
names = {"cls_token": "[CLS]", "sep_token": "[SEP]", "pad_token": "<pad>", "unk_token": "<unk>", "mask_token": "[MASK]"}
(folder / "tokenizer_config.json").write_text(json.dumps({"tokenizer_class": "AlbertTokenizer", **names, **entries}))
(folder / "config.json").write_text(json.dumps({"model_type": "albert"}))
types = AutoTokenizer.from_pretrained(folder)("how much", "ten euros").get("token_type_ids")
print(f"{__version__}{', model_input_names in tokenizer_config.json' if entries else ''}: token_type_ids {types}")
PY
typed='[0, 0, 0, 0, 1, 1, 1]'
for version in 4.57.1 5.5.4; do
  python3 -m venv "$folder/$version"
  "$folder/$version/bin/pip" install -q "transformers==$version" 2>/dev/null
  "$folder/$version/bin/python" "$folder/read_pair.py" "$folder" '{}' 2>/dev/null
done | tee "$folder/seen"
"$folder/5.5.4/bin/python" "$folder/read_pair.py" "$folder" '{"model_input_names": ["input_ids", "token_type_ids", "attention_mask"]}' \
  2>/dev/null | tee -a "$folder/seen"
diff <(printf '%s\n' "4.57.1: token_type_ids $typed" "5.5.4: token_type_ids None" \
  "5.5.4, model_input_names in tokenizer_config.json: token_type_ids $typed") "$folder/seen"
