"""`Engine`: what the export asks of whatever runs a language model; and the table of engines, each opened by its name.

All variants answer the same four questions, so that one file compares them, whatever their format is. An engine runs in a process
of its own (process.py): an inference library may abort the process for a wrong file, and memory and load time are its own.

Shapes: P positions, K most probable tokens, V vocabulary.
"""

import importlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from mangakd.runtime.language_manifest import Engine as Name

Messages = Sequence[tuple[str, str]]
"""(role, content) of each message."""
MODULES: Mapping[Name, str] = {
    "transformers": "mangakd.export.language.torch_engine",
    "llama.cpp": "mangakd.export.language.llama_engine",
    "openvino": "mangakd.export.language.openvino_engine",
}
"""Each module has `open_engine(model: Path, runtime: Mapping[str, Any], context: int) -> Engine`. It alone imports the
library."""


@dataclass(frozen=True)
class Scores:
    """given: (P) log p of the token that is there. top: (P, K) ids, the most probable first. top_log_probs: (P, K).

    Probabilities are those of the whole vocabulary, at temperature 1, in nats. K is V where V is smaller than the K asked for.
    """

    given: np.ndarray
    top: np.ndarray
    top_log_probs: np.ndarray


class Engine(Protocol):
    """A language model with its own tokenizer and chat template, as it is served."""

    def ids(self, texts: Sequence[str], special: bool) -> list[list[int]]:
        """Token ids of each text.

        special: with the tokens that the tokenizer puts around a text, and names of special tokens in it are these tokens. If
        not, the text alone, and such names are text.
        """

    def score(self, ids: Sequence[int], start: int, top: int) -> Scores:
        """Of the positions start ≤ i < len(ids), each given the true ids[:i]; P = len(ids) − start, start ≥ 1. top: K."""

    def greedy(self, ids: Sequence[int], most: int, stops: bool = True) -> list[int]:
        """The most probable tokens after a prompt, one after the other, at most `most`.

        stops: the list ends with the first token that ends a text; if not, it goes on behind it, so that times are of equally
        many tokens. The prompt is computed anew at each call, for the same reason.
        """

    def chat(self, messages: Messages) -> list[int]:
        """Token ids of the prompt that the engine's chat template makes of a conversation, as its server computes them.

        Ids, not text: llama.cpp leaves a BOS token out of the text that its tokenizer puts before it again.
        """

    def close(self) -> None:
        """Free the model."""


def open_engine(name: Name, model: Path, runtime: Mapping[str, Any], context: int) -> Engine:
    """model: the file or folder that language.json names. runtime, context: as they are written there."""
    engine: Engine = importlib.import_module(MODULES[name]).open_engine(model, runtime, context)
    return engine
