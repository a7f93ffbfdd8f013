"""The routes that ask the model, for the HTTP service and the Lambda handler: path → what a body means and how errors look."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from mangakd.runtime import inference_api, openai_api, question, rewrite_api
from mangakd.runtime.model import Model
from mangakd.runtime.question import Limits, Question, Refused

# Model.use
PREDICT, RANK, EMBED, REWRITE = "predict(texts)", "rank(query, documents)", "embed(texts)", "rewrite(texts)"


@dataclass(frozen=True)
class Route:
    """uses: of models that can answer. schema: of a body, for /docs. parse: JSON → question. error: refusal → response."""

    uses: tuple[str, ...]
    schema: dict[str, Any]
    parse: Callable[[Any, Model, Limits], Question]
    error: Callable[[Refused], tuple[int, Any]]

    def question(self, content: Any, model: Model, limits: Limits) -> Question:
        """Raises Refused, with status 424 for a model that cannot answer."""
        if model.use not in self.uses:
            raise Refused(424, f"this student answers with {model.gives}; ask POST {MAIN[model.use]}.")
        return self.parse(content, model, limits)


def _error(refusal: Refused) -> tuple[int, Any]:
    return refusal.status, {"error": str(refusal)}


ROUTES = {
    "/predict": Route((PREDICT, EMBED), question.SCHEMA, question.question, _error),
    "/rerank": Route((RANK,), inference_api.RERANK, inference_api.rerank, inference_api.error),
    "/embed": Route((EMBED,), inference_api.EMBED, inference_api.embed, inference_api.error),
    "/rewrite": Route((REWRITE,), rewrite_api.SCHEMA, rewrite_api.rewriting, _error),
    "/v1/embeddings": Route((EMBED,), openai_api.SCHEMA, openai_api.embeddings, openai_api.error),
}
MAIN = {
    PREDICT: "/predict",
    RANK: "/rerank",
    EMBED: "/embed",
    REWRITE: "/rewrite",
}  # answers at / too, where Hugging Face's clients ask


def path_of(path: str, model: Model) -> str | None:
    """The route of a request's path; None for a path without one."""
    return MAIN[model.use] if path == "/" else path if path in ROUTES else None
