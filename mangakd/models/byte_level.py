"""Byte-level BPE as SmolLM's tokenizer has it: each digit alone, then GPT-2's byte level."""

from tokenizers import Tokenizer, decoders, models, pre_tokenizers


def byte_level(bpe: models.BPE) -> Tokenizer:
    """A tokenizer that splits texts before `bpe` and joins its tokens again."""
    tokenizer = Tokenizer(bpe)
    splits = [pre_tokenizers.Digits(individual_digits=True), pre_tokenizers.ByteLevel(add_prefix_space=False)]
    tokenizer.pre_tokenizer, tokenizer.decoder = pre_tokenizers.Sequence(splits), decoders.ByteLevel()
    return tokenizer
