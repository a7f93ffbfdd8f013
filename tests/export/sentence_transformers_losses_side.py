"""Run where sentence-transformers is installed, without mangakd: python sentence_transformers_losses_side.py < tables as JSON

Tables: scores, teacher and grades (B, G), lists of lists that may differ in length; student and targets (S, D). Prints a JSON
object: name → [loss, its gradient in the student's scores or vectors].
"""

import json
import sys
from collections.abc import Callable
from typing import Any

import torch
from sentence_transformers import CrossEncoder
from sentence_transformers.cross_encoder import losses as of_pairs
from sentence_transformers.sentence_transformer import losses as of_vectors
from torch import Tensor, nn


class Table(CrossEncoder):
    """A cross-encoder whose score of the pair (query, i) is the i-th number of a table."""

    num_labels, device = 1, torch.device("cpu")

    def __init__(self, scores: Tensor) -> None:
        nn.Module.__init__(self)
        self.scores = scores

    def preprocess(self, pairs: Any, **_: Any) -> dict[str, Tensor]:
        return {"at": torch.tensor([int(document) for _, document in pairs])}

    def forward(self, inputs: dict[str, Tensor]) -> dict[str, Tensor]:
        return {"scores": self.scores[inputs["at"]]}


class Vectors(nn.Module):
    """An encoder whose vector of text i is row i of a table."""

    similarity_fn_name = "cosine"

    def __init__(self, rows: Tensor) -> None:
        super().__init__()
        self.rows = rows

    def forward(self, inputs: dict[str, Tensor]) -> dict[str, Tensor]:
        return {"sentence_embedding": self.rows[inputs["at"]]}

    def get_embedding_dimension(self) -> int:
        return self.rows.shape[1]


def with_gradient(leaf: Tensor, loss: Callable[[], Tensor]) -> list[Any]:
    value = loss()
    return [value.item(), torch.autograd.grad(value, leaf)[0].tolist()]


def rankers(tables: dict[str, Any]) -> dict[str, list[Any]]:
    lists = tables["scores"]
    scores = torch.tensor([score for each in lists for score in each], requires_grad=True)
    numbers = iter(range(len(scores)))
    documents = [[str(next(numbers)) for _ in each] for each in lists]
    queries = ["q"] * len(lists)
    grades, teacher = ([torch.tensor(each) for each in tables[name]] for name in ("grades", "teacher"))
    model = Table(scores)
    flat = [["q"] * len(scores), [name for each in documents for name in each]]
    asks: dict[str, Callable[[], Tensor]] = {
        "list_net": lambda: of_pairs.ListNetLoss(model)([queries, documents], grades),
        "rank_net": lambda: of_pairs.RankNetLoss(model)([queries, documents], grades),
        "score_mse": lambda: of_pairs.MSELoss(model)(flat, torch.cat(teacher)),
        "binary": lambda: of_pairs.BinaryCrossEntropyLoss(model)(flat, (torch.cat(grades) > 0).float()),
    }
    if len({len(each) for each in lists}) == 1:  # its columns: a query's best document, then the others
        columns = [queries, *([each[i] for each in documents] for i in range(len(documents[0])))]
        asks["margin_mse"] = lambda: of_pairs.MarginMSELoss(model)(columns, torch.stack(teacher))
    return {name: with_gradient(scores, ask) for name, ask in asks.items()}


def encoders(tables: dict[str, Any]) -> dict[str, list[Any]]:
    rows = torch.tensor(tables["student"], requires_grad=True)
    targets, scores = torch.tensor(tables["targets"]), torch.tensor(tables["pair_scores"])
    model = Vectors(rows)
    every = [{"at": torch.arange(len(rows))}]
    thirds = [rows[i::3] for i in range(3)]  # anchor, positive and negative of a row lie side by side
    asks: dict[str, Callable[[], Tensor]] = {
        "vector mse": lambda: of_vectors.MSELoss(model)(every, targets),
        "vector cosine": lambda: of_vectors.EmbedDistillLoss(model, distance_metric="cosine")(every, targets),
        "contrastive": lambda: of_vectors.MultipleNegativesRankingLoss(model).compute_loss_from_embeddings(
            thirds, scores
        ),
        "pair_score": lambda: of_vectors.CosineSimilarityLoss(model).compute_loss_from_embeddings(thirds[:2], scores),
    }
    return {name: with_gradient(rows, ask) for name, ask in asks.items()}


if __name__ == "__main__":
    given = json.load(sys.stdin)
    print(json.dumps([rankers(each) if "scores" in each else encoders(each) for each in given]))
