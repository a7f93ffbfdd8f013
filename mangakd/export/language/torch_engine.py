"""`TorchEngine`: a Hugging Face folder by transformers, in the precision of its weights. The reference of every other engine.

runtime: {"threads": int}.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from transformers import AutoModelForCausalLM, AutoTokenizer, DynamicCache

from mangakd.export.language.engine import Messages, Scores
from mangakd.models.quiet import quiet


class TorchEngine:
    """stops: ids of tokens that end a text, as generation_config.json and the tokenizer name them."""

    def __init__(self, model: Any, tokenizer: Any, plain: Any) -> None:
        self.model, self._tokenizer, self._plain = model.eval(), tokenizer, plain
        named = [model.generation_config.eos_token_id, model.config.eos_token_id, tokenizer.eos_token_id]
        each = [token for entry in named for token in (entry if isinstance(entry, list | tuple) else [entry])]
        self.stops = frozenset(token for token in each if token is not None)

    def ids(self, texts: Sequence[str], special: bool) -> list[list[int]]:
        tokenizer = self._tokenizer if special else self._plain
        return [tokenizer(text, add_special_tokens=special)["input_ids"] for text in texts]

    @torch.inference_mode()
    def score(self, ids: Sequence[int], start: int, top: int) -> Scores:
        logits = self.model(input_ids=torch.tensor([ids]), use_cache=False).logits[0, start - 1 : -1].float()
        log_probs = torch.log_softmax(logits, -1)
        best = log_probs.topk(min(top, log_probs.shape[-1]), dim=-1)
        given = log_probs.gather(1, torch.tensor(ids[start:])[:, None])[:, 0]
        return Scores(given.numpy(), best.indices.numpy(), best.values.numpy())

    @torch.inference_mode()
    def greedy(self, ids: Sequence[int], most: int, stops: bool = True) -> list[int]:
        """A loop of its own, because `generate` adds some milliseconds a token, which are no cost of the model."""
        cache, tokens = DynamicCache(config=self.model.config), list[int]()
        following = torch.tensor([ids])
        while len(tokens) < most:
            output = self.model(input_ids=following, past_key_values=cache, use_cache=True, logits_to_keep=1)
            token = int(output.logits[0, -1].argmax())
            tokens.append(token)
            if stops and token in self.stops:
                break
            following = torch.tensor([[token]])
        return tokens

    def chat(self, messages: Messages) -> list[int]:
        chat = [{"role": role, "content": content} for role, content in messages]
        ids: list[int] = self._tokenizer.apply_chat_template(chat, add_generation_prompt=True, return_dict=False)
        return ids

    def close(self) -> None:
        del self.model


def read_tokenizers(folder: Path) -> tuple[Any, Any]:
    """The folder's tokenizer, and the same one that reads names of special tokens as text."""
    with quiet():
        return AutoTokenizer.from_pretrained(folder), AutoTokenizer.from_pretrained(folder, split_special_tokens=True)


def open_engine(model: Path, runtime: Mapping[str, Any], context: int) -> TorchEngine:
    """context: not read; transformers computes positions."""
    torch.set_num_threads(runtime["threads"])
    return read_engine(model)


def read_engine(folder: Path) -> TorchEngine:
    """In this process, with its threads."""
    with quiet():
        model = AutoModelForCausalLM.from_pretrained(folder, dtype="auto")
    return TorchEngine(model, *read_tokenizers(folder))
