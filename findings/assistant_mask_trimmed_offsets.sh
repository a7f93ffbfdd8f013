#!/usr/bin/env bash
# transformers 5.5.4: apply_chat_template(return_assistant_tokens_mask=True) gives a mask without a single assistant token, and no
# warning, for a template that marks its answers by {% generation %} and begins them with a blank, as Mistral's do. A byte-level
# tokenizer with trim_offsets=True (GPT-2, RoBERTa, Llama 3) leaves the blank out of the offsets of its token. The library then finds
# no token at the first character of an answer and leaves out all answers from there on. Output seen:
#   5.5.4, trim_offsets=True: ''
#   5.5.4, trim_offsets=False: ' it is</s> here</s>'
# For us: mangakd/data/special_names.py reads renderings with a copy of the tokenizer that has no post-processor, and
# mangakd/data/chat_tokens.py refuses an answer whose tokens do not cover its text. Exits with 1 where the behaviour has changed.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cat > "$folder/masks.py" <<'PY'
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers
from transformers import PreTrainedTokenizerFast, __version__

made = Tokenizer(models.BPE())
made.pre_tokenizer, made.decoder = pre_tokenizers.ByteLevel(add_prefix_space=False), decoders.ByteLevel()
alphabet = pre_tokenizers.ByteLevel.alphabet()
made.train_from_iterator(
    ["where is it it is here"] * 3,
    trainers.BpeTrainer(vocab_size=300, initial_alphabet=alphabet, special_tokens=["</s>"], show_progress=False),
)
template = (
    "{% for message in messages %}{% if message.role == 'user' %}[Q]{{ message.content }}[A]"
    "{% else %}{% generation %}{{ ' ' + message.content + eos_token }}{% endgeneration %}{% endif %}{% endfor %}"
)
turns = ("user", "where"), ("assistant", "it is"), ("user", "where"), ("assistant", "here")
chat = [{"role": role, "content": content} for role, content in turns]
for trim in (True, False):
    made.post_processor = processors.ByteLevel(trim_offsets=trim)
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=made, eos_token="</s>", chat_template=template)
    read = tokenizer.apply_chat_template(chat, return_dict=True, return_assistant_tokens_mask=True)
    answers = [token for token, marked in zip(read["input_ids"], read["assistant_masks"]) if marked]
    print(f"{__version__}, trim_offsets={trim}: {tokenizer.decode(answers)!r}")
PY
python3 -m venv "$folder/environment"
"$folder/environment/bin/pip" install -q transformers==5.5.4 jinja2==3.1.6 2>/dev/null
"$folder/environment/bin/python" "$folder/masks.py" 2>/dev/null | tee "$folder/seen"
diff <(printf '%s\n' "5.5.4, trim_offsets=True: ''" "5.5.4, trim_offsets=False: ' it is</s> here</s>'") "$folder/seen"
