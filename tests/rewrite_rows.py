"""Rows of `task=rewrite`, and a tokenizer that is trained on them: BPE with padding, EOS and unknown token."""

from functools import cache
from typing import Any

from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers
from transformers import PreTrainedTokenizerFast

from mangakd.data.rows import NOTHING, Rows
from mangakd.runtime.tokenise import read_as_text
from mangakd.tasks.rewrite.encode import COLUMNS

PEOPLE = ("Ada Lovelace", "Alan Turing", "Grace Hopper", "Edsger Dijkstra", "Barbara Liskov", "Donald Knuth")
ASKED = ("Where was {} born?", "What did {} invent?", "Who taught {}?", "When did {} die?")


def columns(count: int) -> dict[str, list[Any]]:
    """Conversations: a name, then a pronoun in its place. Each third row has two rewrites, each fifth is a first turn."""
    cells: dict[str, list[Any]] = {name: [NOTHING[kind]] * count for name, kind in COLUMNS.items()}
    for i in range(count):
        person, asked, first = PEOPLE[i % 6], ASKED[i // 6 % 4], f"Who was {PEOPLE[i % 6]} in {1900 + i}?"
        rewrite = asked.format(person)
        cells["history"][i] = () if i % 5 == 0 else (first, f"{person} was a scientist.")
        cells["utterance"][i] = rewrite if i % 5 == 0 else asked.format("this person")
        cells["rewrite"][i] = (rewrite, f"{rewrite} Facts") if i % 3 == 2 else (rewrite,)
        cells["answer"][i] = f"{person}: answer {i // 6 % 4} of {asked.split()[0]}"
        cells["source"][i] = "two" if i % 2 else "one"
    return cells


def rows(count: int = 12, **changes: Any) -> Rows:
    return Rows({**columns(count), **changes}, origin="data.path=rewrites.jsonl", unit="line")


def row(**cells: Any) -> Rows:
    """One row of these cells."""
    return Rows({name: [cells.get(name, NOTHING[kind])] for name, kind in COLUMNS.items()})


@cache
def rewrite_tokenizer() -> Any:
    every = columns(60)
    texts = [text for i in range(60) for text in (*every["history"][i], every["utterance"][i], *every["rewrite"][i])]
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    special = ["<pad>", "</s>", "<unk>"]
    trainer = trainers.BpeTrainer(
        vocab_size=420, special_tokens=special, initial_alphabet=alphabet, show_progress=False
    )
    tokenizer.train_from_iterator(texts, trainer)
    tokenizer.post_processor = processors.TemplateProcessing(single="$A </s>", special_tokens=[("</s>", 1)])
    fast = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, pad_token="<pad>", eos_token="</s>", unk_token="<unk>", split_special_tokens=True
    )
    read_as_text(fast.backend_tokenizer)
    return fast
