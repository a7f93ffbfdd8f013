"""`LlamaEngine`: a GGUF file by llama.cpp's own server, out of the pip package xllamacpp, in this process and over HTTP.

All numbers are llama.cpp's own: `/tokenize` and `/apply-template` as a server answers them, and log-probabilities of
`/completion` with `n_probs`, which are those of the whole vocabulary before any sampler. The server gives them for the next
token alone, so that a sequence of T tokens takes T requests; each computes one token, as the tokens before it are in the cache.

runtime: {"threads": int, and settings by their names in llama.cpp's common_params}.
"""

import http.client
import json
from collections.abc import Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import numpy as np

from mangakd.export.language.engine import Messages, Scores

SECONDS = 600  # of one request
_BIAS, _ALL = 1e4, 1 << 24  # logits; tokens
GREEDY = {"temperature": 0, "samplers": ["top_k"], "top_k": 1, "seed": 0}
RUNTIME = {"n_batch": 512, "n_ubatch": 512, "cache_type_k": 1, "cache_type_v": 1}
"""Settings of a served file: tokens of a step of the prompt, and keys and values in f16 (ggml_type 1)."""


class LlamaEngine:
    def __init__(self, model: Path, runtime: Mapping[str, Any], context: int) -> None:
        import xllamacpp

        # The server ends with its last reference.
        self._server = xllamacpp.Server(parameters(xllamacpp.CommonParams(), model, runtime, context))
        self._address = urlsplit(self._server.listening_address).netloc

    def ids(self, texts: Sequence[str], special: bool) -> list[list[int]]:
        each = ({"content": text, "add_special": special, "parse_special": special} for text in texts)
        return [self._ask("/tokenize", body)["tokens"] for body in each]

    def score(self, ids: Sequence[int], start: int, top: int) -> Scores:
        rows = [self._next(ids[:place], top, ids[place]) for place in range(start, len(ids))]
        width = min((len(best) for _, best in rows), default=0)
        return Scores(
            np.array([given for given, _ in rows]),
            np.array([[token["id"] for token in best[:width]] for _, best in rows], dtype=np.int64),
            np.array([[token["logprob"] for token in best[:width]] for _, best in rows]),
        )

    def greedy(self, ids: Sequence[int], most: int, stops: bool = True) -> list[int]:
        body = {"prompt": list(ids), "n_predict": most, "ignore_eos": not stops, "return_tokens": True, **GREEDY}
        return self._ask("/completion", {**body, "cache_prompt": False})["tokens"]  # type: ignore[no-any-return]

    def chat(self, messages: Messages) -> list[int]:
        chat = [{"role": role, "content": content} for role, content in messages]
        return self.ids([self._ask("/apply-template", {"messages": chat})["prompt"]], True)[0]

    def close(self) -> None:
        del self._server

    def _next(self, prefix: Sequence[int], top: int, given: int) -> tuple[float, list[dict[str, Any]]]:
        """log p of a token after a prefix, and the most probable tokens.

        The server says nothing of a token that ends in the middle of a character. So the token is forced by a bias, which does
        not change the log-probabilities; if it is such a token, a whole character is forced, and all tokens are asked for.
        """
        answer = self._forced(prefix, top, given)
        if answer is not None:
            return answer["logprob"], answer["top_logprobs"]
        answer = self._forced(prefix, _ALL, self._whole)
        if answer is None:
            raise RuntimeError(f"llama.cpp gives no log-probabilities behind token {self._whole}")
        best = answer["top_logprobs"]
        return next(token["logprob"] for token in best if token["id"] == given), best[:top]

    def _forced(self, prefix: Sequence[int], top: int, token: int) -> dict[str, Any] | None:
        body = {
            "prompt": list(prefix),
            "n_predict": 1,
            "n_probs": top,
            "logit_bias": [[token, _BIAS]],
            "cache_prompt": True,
        }
        answer = self._ask("/completion", {**body, **GREEDY}).get("completion_probabilities")
        return answer[0] if answer else None

    @cached_property
    def _whole(self) -> int:
        """A token that is a whole character."""
        ids: list[int] = self._ask("/tokenize", {"content": "a"})["tokens"]
        return ids[-1]

    def _ask(self, path: str, body: Mapping[str, Any]) -> Any:
        # A connection for each request: the server closes one that was idle for some seconds.
        connection = http.client.HTTPConnection(self._address, timeout=SECONDS)
        try:
            connection.request("POST", path, json.dumps(body), {"Content-Type": "application/json"})
            response = connection.getresponse()
            content = response.read()
        finally:
            connection.close()
        if response.status != http.client.OK:
            raise RuntimeError(
                f"llama.cpp answers {path} with {response.status}: {content[:300].decode(errors='replace')}"
            )
        return json.loads(content)


def parameters(params: Any, model: Path, runtime: Mapping[str, Any], context: int) -> Any:
    """One question at a time on a free port of this machine, without what a server keeps for further questions."""
    params.model.path = str(model)
    params.n_ctx, params.n_parallel, params.port, params.verbosity = context, 1, 0, 0
    params.cpuparams.n_threads = params.cpuparams_batch.n_threads = runtime["threads"]
    params.fit_params = False  # it would lower the context silently to what memory holds
    params.cache_ram_mib = 0
    params.ui = params.endpoint_slots = False
    for name, value in runtime.items():
        if name != "threads":
            setattr(params, name, value)
    return params


def open_engine(model: Path, runtime: Mapping[str, Any], context: int) -> LlamaEngine:
    return LlamaEngine(model, runtime, context)
