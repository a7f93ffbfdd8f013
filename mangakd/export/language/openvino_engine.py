"""`OpenVinoEngine`: a stateful IR by OpenVINO, with the tokenizer that was converted beside it; without torch.

The model keeps keys and values of earlier tokens in variables. It is asked for logits of the last tokens alone: the matrix of the
head has a row for each entry of the vocabulary, and prompts are long.

runtime: {"threads": int, and OpenVINO's properties by their names}.
"""

import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import openvino as ov
import openvino_tokenizers  # noqa: F401 (registers the operations of a tokenizer's IR)
from openvino import opset13 as opset
from tokenizers import Tokenizer

from mangakd.export.language.engine import Messages, Scores
from mangakd.export.language.openvino_layout import KEPT, TOKENIZER, inputs

_FREE = (
    "Convert",
    "Add",
    "Multiply",
    "Divide",
    "Tanh",
)  # between the product with the head and the logits, token by token


class OpenVinoEngine:
    """stops: ids of tokens that end a text, as config files and the tokenizer name them."""

    def __init__(self, model: Path, runtime: Mapping[str, Any], context: int) -> None:
        folder, core = model.parent, ov.Core()
        properties = {name: value for name, value in runtime.items() if name != "threads"}
        threads = {"INFERENCE_NUM_THREADS": runtime["threads"]}
        compiled = core.compile_model(keep_last(core.read_model(model)), "CPU", {**properties, **threads})
        self._names = [each.get_any_name() for each in compiled.inputs]
        self._request = compiled.create_infer_request()
        self._folder = folder
        self._tokenizer = core.compile_model(folder / TOKENIZER, "CPU", threads)
        self._file = Tokenizer.from_file(str(folder / "tokenizer.json"))
        self.stops = frozenset(_stops(folder, self._file))

    def ids(self, texts: Sequence[str], special: bool) -> list[list[int]]:
        """special: by the converted tokenizer, which always reads names of special tokens as these tokens. So the other ids are
        those of tokenizer.json beside it; and so are those of texts with a NUL at their end, which OpenVINO's Python drops."""
        if special:
            return [self._by_file(text, True) if text.endswith("\0") else self._converted(text) for text in texts]
        return [self._by_file(text, False) for text in texts]

    def score(self, ids: Sequence[int], start: int, top: int) -> Scores:
        self._request.reset_state()
        log_probs = log_softmax(self._logits(ids[:-1], 0, len(ids) - start))
        best = np.argpartition(log_probs, -min(top, log_probs.shape[1]), axis=1)[:, -top:]
        order = np.argsort(-np.take_along_axis(log_probs, best, 1), axis=1, kind="stable")
        best = np.take_along_axis(best, order, 1)
        given = np.take_along_axis(log_probs, np.array(ids[start:])[:, None], 1)[:, 0]
        return Scores(given, best, np.take_along_axis(log_probs, best, 1))

    def greedy(self, ids: Sequence[int], most: int, stops: bool = True) -> list[int]:
        self._request.reset_state()
        tokens, following, past = list[int](), list(ids), 0
        while len(tokens) < most:
            token = int(self._logits(following, past, 1)[0].argmax())
            tokens.append(token)
            if stops and token in self.stops:
                break
            past, following = past + len(following), [token]
        return tokens

    def chat(self, messages: Messages) -> list[int]:
        """The template by transformers. It is imported here: neither its time nor its memory is the model's."""
        from transformers import AutoTokenizer

        chat = [{"role": role, "content": content} for role, content in messages]
        tokenizer = AutoTokenizer.from_pretrained(self._folder)
        text: Any = tokenizer.apply_chat_template(chat, tokenize=False, add_generation_prompt=True)
        return self._by_file(text, True, around=False)

    def close(self) -> None:
        del self._request, self._tokenizer

    def _converted(self, text: str) -> list[int]:
        return self._tokenizer([text])["input_ids"][0].tolist()  # type: ignore[no-any-return]

    def _by_file(self, text: str, special: bool, around: bool | None = None) -> list[int]:
        """around: with the tokens that stand around a text; None: as `special`."""
        self._file.encode_special_tokens = not special
        return self._file.encode(text, add_special_tokens=special if around is None else around).ids  # type: ignore[no-any-return]

    def _logits(self, ids: Sequence[int], past: int, last: int) -> np.ndarray:
        """(last, V), behind `past` tokens in the state."""
        logits: np.ndarray = self._request.infer(inputs(self._names, ids, past, last))["logits"]
        return logits[0, -last:]


def keep_last(model: Any) -> Any:
    """Give the model the input KEPT, in front of its head. A model whose head is not found computes all logits."""
    node = model.output("logits").get_node().input_value(0).get_node()
    while node.get_type_name() in _FREE:
        node = node.input_value(0).get_node()
    if node.get_type_name() != "MatMul":
        return model
    kept = opset.parameter([1], np.int64, name=KEPT)
    kept.output(0).get_tensor().set_names({KEPT})
    start = opset.negative(kept)
    end, step, axis = (opset.constant([value], np.int64) for value in (np.iinfo(np.int64).max, 1, 1))
    node.input(0).replace_source_output(opset.slice(node.input_value(0), start, end, step, axis).output(0))
    model.add_parameters([kept])
    model.validate_nodes_and_infer_types()
    return model


def log_softmax(logits: np.ndarray) -> np.ndarray:
    """(P, V), in float64: a sum over a large vocabulary."""
    shifted = logits.astype(np.float64) - logits.max(axis=1, keepdims=True)
    return shifted - np.log(np.exp(shifted).sum(axis=1, keepdims=True))


def _stops(folder: Path, tokenizer: Tokenizer) -> Iterator[int]:
    for name in ("generation_config.json", "config.json"):
        if (folder / name).is_file():
            entry = json.loads((folder / name).read_text(encoding="utf-8")).get("eos_token_id")
            yield from entry if isinstance(entry, list) else [] if entry is None else [entry]
    named = json.loads((folder / "tokenizer_config.json").read_text(encoding="utf-8")).get("eos_token")
    token = tokenizer.token_to_id(named["content"] if isinstance(named, dict) else named) if named else None
    if token is not None:
        yield token


def open_engine(model: Path, runtime: Mapping[str, Any], context: int) -> OpenVinoEngine:
    return OpenVinoEngine(model, runtime, context)
