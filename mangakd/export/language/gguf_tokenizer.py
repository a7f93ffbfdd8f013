"""The tokenizer of a GGUF file: kind, tokens with their types, merges, and what stands around a text.

llama.cpp knows two kinds that Llama-shaped models have: byte-level BPE ("gpt2"), and BPE with ▁ for blanks and bytes for unknown
characters ("llama", SentencePiece). How a text of the first kind is split before its merges, `tokenizer.ggml.pre`, is a name
for code in llama.cpp; pre_tokenizer.py finds it.
"""

import json
from dataclasses import dataclass
from typing import Any

from mangakd.core.errors import UserError
from mangakd.export.checks import KEY

BYTES, BLANKS = "gpt2", "llama"


@dataclass(frozen=True)
class Vocabulary:
    """kind: BYTES or BLANKS. tokens: V texts. types: V of gguf's TokenType. merges: of BYTES. scores: V, of BLANKS.

    before, after: whether BOS and EOS stand around a text. prefix: whether a blank is put before a text.
    """

    kind: str
    tokens: list[str]
    types: list[int]
    merges: list[str]
    scores: list[float]
    before: bool
    after: bool
    prefix: bool


def check_tokenizer(tokenizer: Any) -> None:
    """Raises UserError for a tokenizer that llama.cpp cannot compute, with its kind."""
    kind_of(tokenizer)
    _around(tokenizer)


def kind_of(tokenizer: Any) -> str:
    """BYTES or BLANKS. Raises UserError for Unigram, WordPiece and for BPE of another kind."""
    state = json.loads(tokenizer.backend_tokenizer.to_str())
    name = state["model"]["type"]
    if name == "BPE" and _holds(state, "ByteLevel"):
        return BYTES
    if name == "BPE" and state["model"].get("byte_fallback"):
        return BLANKS
    what = "BPE of neither bytes nor ▁ with bytes for unknown characters" if name == "BPE" else name
    raise UserError(
        f"{KEY} has a tokenizer of the kind {what}, of which no GGUF file is written: llama.cpp computes byte-level BPE, and "
        "BPE with byte_fallback. Export merged alone."
    )


def vocabulary(tokenizer: Any, size: int) -> Vocabulary:
    """size: V, of the embeddings. Ids without a token are UNUSED."""
    from gguf import TokenType

    kind, state = kind_of(tokenizer), json.loads(tokenizer.backend_tokenizer.to_str())
    tokens, types = [f"[UNUSED{i}]" for i in range(size)], [int(TokenType.UNUSED)] * size
    for token, i in tokenizer.get_vocab().items():
        tokens[i], types[i] = token, int(TokenType.NORMAL)
        if kind == BLANKS and _is_byte(token):
            types[i] = int(TokenType.BYTE)
    for i, token in tokenizer.added_tokens_decoder.items():
        tokens[i] = token.content
        types[i] = int(TokenType.CONTROL if token.special else TokenType.USER_DEFINED)
    if kind == BLANKS and tokenizer.unk_token_id is not None:
        types[tokenizer.unk_token_id] = int(TokenType.UNKNOWN)
    pairs = [tuple(each.split(" ")) if isinstance(each, str) else tuple(each) for each in state["model"]["merges"]]
    before, after = _around(tokenizer)
    scores = _scores(tokens, pairs) if kind == BLANKS else []
    merges = [" ".join(pair) for pair in pairs] if kind == BYTES else []
    return Vocabulary(
        kind, tokens, types, merges, scores, before, after, _prefixes(tokenizer) if kind == BLANKS else False
    )


def add_vocabulary(writer: Any, own: Vocabulary, tokenizer: Any, pre: str, ends: list[int]) -> None:
    """Entries of the tokenizer. writer: a GGUFWriter. ends: ids of tokens that end a text, the tokenizer's own first."""
    writer.add_tokenizer_model(own.kind)
    writer.add_tokenizer_pre(pre)
    writer.add_token_list(own.tokens)
    writer.add_token_types(own.types)
    if own.merges:
        writer.add_token_merges(own.merges)
    if own.scores:
        writer.add_token_scores(own.scores)
    writer.add_add_bos_token(own.before)
    writer.add_add_eos_token(own.after)
    writer.add_add_space_prefix(own.prefix)
    ids = {"bos": tokenizer.bos_token_id, "unk": tokenizer.unk_token_id, "pad": tokenizer.pad_token_id}
    for name, token in {**ids, **dict(zip(("eos", "eot", "eom"), ends, strict=False))}.items():
        if token is not None:
            getattr(writer, f"add_{name}_token_id")(token)
    if tokenizer.chat_template:
        writer.add_chat_template(tokenizer.get_chat_template())


def _scores(tokens: list[str], pairs: list[tuple[str, ...]]) -> list[float]:
    """llama.cpp merges the pair whose union has the largest score: minus the rank of the first merge that gives a token."""
    ranks: dict[str, int] = {}
    for rank, pair in enumerate(pairs):
        ranks.setdefault("".join(pair), rank)
    return [-float(ranks.get(token, len(pairs))) for token in tokens]


def _around(tokenizer: Any) -> tuple[bool, bool]:
    """Whether BOS stands before a text, and EOS after it. Raises UserError for other tokens around a text."""
    whole, bare = tokenizer("a")["input_ids"], tokenizer("a", add_special_tokens=False)["input_ids"]
    for before in (False, True):
        for after in (False, True):
            start = [tokenizer.bos_token_id] if before else []
            end = [tokenizer.eos_token_id] if after else []
            if whole == [*start, *bare, *end]:
                return before, after
    raise UserError(
        f"{KEY} has a tokenizer that puts other tokens around a text than BOS and EOS ({whole} for 'a'), which no GGUF file "
        "says. Export merged alone."
    )


def _prefixes(tokenizer: Any) -> bool:
    """Whether a blank is put before a text."""
    first: str = tokenizer.convert_ids_to_tokens(tokenizer("a", add_special_tokens=False)["input_ids"])[0]
    return first.startswith("▁")


def _is_byte(token: str) -> bool:
    return len(token) == 6 and token.startswith("<0x") and token.endswith(">")


def _holds(state: Any, kind: str) -> bool:
    """Whether a step of the pre-tokenizer, or of the normaliser, is of this type."""
    if isinstance(state, dict):
        return state.get("type") == kind or any(
            _holds(state.get(name), kind) for name in ("pre_tokenizer", "pretokenizers", "normalizer", "normalizers")
        )
    return isinstance(state, list) and any(_holds(each, kind) for each in state)
