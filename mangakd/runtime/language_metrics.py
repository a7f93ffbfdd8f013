"""The metrics of a language model's answers: texts, tokens of prompts and answers, and the time to the first token."""

import time
from collections.abc import Mapping
from typing import Any

from mangakd.runtime.metrics import SECONDS, Counter, Histogram

LONG_SECONDS = (*SECONDS, 25.0, 50.0, 100.0, 250.0)  # an answer takes as long as its tokens


class LanguageMetrics:
    def __init__(self) -> None:
        self.texts = Counter("mangakd_texts_total", "Texts answered.")
        self.prompt = Counter("mangakd_prompt_tokens_total", "Tokens of the prompts that were answered.")
        self.generated = Counter("mangakd_generated_tokens_total", "Tokens written.")
        self.first = Histogram(
            "mangakd_first_token_seconds", "From a request to the first token of its stream.", LONG_SECONDS
        )


class Record:
    """Counts one answer while it passes, so that a client that has it finds it in the metrics. It begins with the request."""

    def __init__(self, metrics: LanguageMetrics):
        self._metrics, self._start, self._begun = metrics, time.perf_counter(), False

    def first_token(self) -> None:
        """The first call counts."""
        if not self._begun:
            self._begun = True
            self._metrics.first.observe(time.perf_counter() - self._start)

    def usage(self, usage: Any) -> None:
        """usage: OpenAI's object, which comes once, at the end."""
        if isinstance(usage, Mapping):
            self._metrics.texts.add()
            self._metrics.prompt.add(int(usage.get("prompt_tokens", 0)))
            self._metrics.generated.add(int(usage.get("completion_tokens", 0)))
