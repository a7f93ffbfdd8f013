"""Special tokens that a tokenizer holds in reserve: <|reserved_special_token_2|> of Llama 3 has a name in Llama 3.1."""

import json
from typing import Any

from mangakd.models.load import vocabulary_digest

_MARK = "reserved"


def differ_in_reserved(one: Any, other: Any) -> bool:
    """Whether two tokenizers read texts alike, and differ only in special tokens that one of the two, or both, reserve."""
    if vocabulary_digest(one) == vocabulary_digest(other):
        return False
    names = [{i: token for token, i in tokenizer.get_vocab().items()} for tokenizer in (one, other)]
    if names[0].keys() != names[1].keys():
        return False
    apart = [i for i in names[0] if names[0][i] != names[1][i]]
    reserved = all(any(_MARK in own[i] for own in names) and _special(one, i) and _special(other, i) for i in apart)
    return reserved and _rest(one, apart) == _rest(other, apart)


def _special(tokenizer: Any, i: int) -> bool:
    token = tokenizer.added_tokens_decoder.get(i)
    return token is not None and token.special


def _rest(tokenizer: Any, apart: list[int]) -> str:
    """How the tokenizer reads texts, without the tokens at these ids."""
    state = json.loads(tokenizer.backend_tokenizer.to_str())
    added = [token for token in state["added_tokens"] if token["id"] not in apart]
    return json.dumps([state["model"], state["normalizer"], state["pre_tokenizer"], added])
