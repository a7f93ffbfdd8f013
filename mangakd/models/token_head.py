"""The score of late interaction: a vector for each token, and the nearest token of the document for each token of the query.

    vector of a token = normalize(W · state)              W: (D, H)
    score = Σ_i max_j q_i · d_j                           i: tokens of the query, j: tokens of the document

Padding of a document is -inf before the maximum: 0 would win against similarities that are all negative. Padding of a query adds
nothing. So a score depends on no other text of its batch. Arithmetic is in fp32, and states of padding are replaced before it:
they may be NaN.

S pairs, Q queries, N texts, T tokens, H hidden size, D dimensions of a token's vector.
Source: Khattab and Zaharia 2020, arXiv:2004.12832.
"""

import hashlib
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from mangakd.models.activations import activation
from mangakd.models.late import Late, of_config, of_folder
from mangakd.models.pooling import PYLATE, Dense, read_dense, save_dense, write_modules
from mangakd.models.sentence_transformers import COLBERT, Settings, write_settings
from mangakd.runtime.late import OWNER, QUERY, SCORED

Inputs = Mapping[str, Tensor]


class Queries(NamedTuple):
    """Of a batch. states: (Q, T, H). scored: the tokens that count, (Q, T)."""

    states: Tensor
    scored: Tensor


class TokenHead(nn.Module):
    """States (N, T, H) and mask (N, T), 0 for padding → vectors (N, T, D) of length 1 in fp32, 0 in padding."""

    def __init__(self, settings: Late, dense: Dense) -> None:
        super().__init__()
        self.settings, self.shape = settings, dense
        self.linear = nn.Linear(dense.inputs, dense.outputs, dense.bias)
        self.activation = activation(dense.activation, dense.where)

    def forward(self, states: Tensor, mask: Tensor) -> Tensor:
        padding = ~mask.bool().unsqueeze(-1)
        states = states.masked_fill(padding, 0.0).to(self.linear.weight.dtype)
        vectors = nn.functional.normalize(self.activation(self.linear(states)).float(), dim=-1)
        return vectors.masked_fill(padding, 0.0)

    def scores(self, queries: Queries, states: Tensor, inputs: Inputs) -> Tensor:
        """(S, 1). states: of documents, (S, T, H). inputs: OWNER and SCORED of the pairs."""
        owner, scored = inputs[OWNER].squeeze(1), inputs[SCORED]
        vectors = self(*queries)[owner]
        return max_sim(vectors, self(states, scored), queries.scored[owner], scored)[:, None]

    def digest(self, weights: str) -> str:
        """The digest of an encoder's weights, with all else that its scores depend on."""
        digest = hashlib.sha256(f"{weights}{self.settings}{replace(self.shape, where=None)}".encode())
        for name, value in sorted(self.linear.state_dict().items()):
            digest.update(name.encode() + value.detach().cpu().float().contiguous().numpy().tobytes())
        return digest.hexdigest()[:16]


def max_sim(queries: Tensor, documents: Tensor, of_query: Tensor, of_document: Tensor) -> Tensor:
    """Scores (S). queries, documents: vectors (S, T, D) of length 1. of_query, of_document: the tokens that count, (S, T).

    A document without tokens gets -1, the least similarity, for each token of the query.
    """
    with torch.autocast(queries.device.type, enabled=False):
        similarities = queries.float() @ documents.float().transpose(1, 2)
    there = of_document.bool()
    best = similarities.masked_fill(~there[:, None, :], -torch.inf).max(-1).values
    best = torch.where(there.any(1, keepdim=True), best, -1.0)
    return best.masked_fill(~of_query.bool(), 0.0).sum(-1)


def of_queries(inputs: Inputs) -> Inputs:
    """What a batch says of its queries, by the names that it has for documents. Raises KeyError for a batch of other models."""
    names = [name for name in inputs if name.startswith(QUERY)]
    return {OWNER: inputs[OWNER], **{name.removeprefix(QUERY): inputs[name] for name in names}}


def each_alone(inputs: Inputs) -> Inputs:
    """Inputs in which each text is the query of itself, for models that are tried on single texts. inputs: name → (N, T)."""
    mask = inputs["attention_mask"]
    owner = torch.arange(len(mask), device=mask.device)[:, None]
    own = {**inputs, SCORED: mask}
    return {**own, **{f"{QUERY}{name}": value for name, value in own.items()}, OWNER: owner}


def head_of(config: Any) -> TokenHead:
    """The head that a config asks for: with the weights of its folder, or new ones where the folder has none of this size."""
    settings, stored = of_config(config), _stored(config)
    assert settings is not None
    if stored is None:
        return TokenHead(settings, Dense(config.hidden_size, settings.dims, bias=False, activation="Identity"))
    head = TokenHead(settings, stored)
    read_dense(head.linear, stored)
    return head


def is_trained(config: Any) -> bool:
    """Whether the folder of a config has the weights of the head that the config asks for."""
    return _stored(config) is not None


def _stored(config: Any) -> Dense | None:
    """The linear layer of the config's folder, where it has as many dimensions as the config asks for."""
    settings, stored = of_config(config), of_folder(config.name_or_path)
    return stored[1] if settings and stored and stored[1].outputs == settings.dims else None


def save_token_head(head: TokenHead, folder: Path, settings: Settings | None = None) -> None:
    """Write what makes a model of PyLate of the encoder in `folder`. settings: its max_length is for queries and documents."""
    write_modules({"1_Dense": f"{PYLATE}models.Dense.Dense"}, folder)
    save_dense(head.linear, head.shape, folder / "1_Dense")
    late, settings = head.settings, settings or Settings()
    lengths = {"query_length": late.query_length or settings.max_length, "document_length": settings.max_length}
    write_settings(
        settings, folder, COLBERT, similarity_fn_name="MaxSim", query_prefix=late.query_prefix,
        document_prefix=late.document_prefix, do_query_expansion=late.query_length > 0,
        attend_to_expansion_tokens=late.attend, skiplist_words=list(late.skip), **{n: v for n, v in lengths.items() if v},
    )  # fmt: skip
