"""Start a smaller student from its teacher: fewer and narrower layers whose weights are fitted, not drawn.

D teacher, d student width; x = γ n + β is what a norm of the teacher gives, n its normalised sum. One basis Q (D, d), the main
directions of n over all norms, turns the teacher's stream into the student's: n_s = Qᵀ n. What reads the stream is W diag(γ) Q;
of each attention head the best low-rank factors of its products are kept (weighted by the second moments of what they read), of a
feed-forward network the neurons that add most. What writes into the stream is then fitted by ridge regression, layer by layer and
on the student's own activations, so that a layer also makes up for the layers left out and for what was lost before it.

Sources: main directions of the stream, Ashkboos et al. 2024 (arXiv:2401.15024); regression of what a smaller layer writes, He
et al. 2017 (arXiv:1707.06168). Both keep the depth; here it shrinks, too, and γ moves into what reads.
"""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from mangakd.core.layer_map import resolve
from mangakd.models.encoder import Encoder
from mangakd.students.blocks import Block, parts_of

RIDGE = 1e-2  # of the mean square of a feature
Inputs = Mapping[str, Tensor]


@torch.no_grad()
def start_from(
    teacher: Encoder, student: Encoder, texts: Iterable[Inputs], rows: Sequence[int] | slice | None
) -> float:
    """Fit all weights of the student, on the CPU; the teacher answers where it is.

    texts: batches of training texts, inputs (B, T) of both models. rows: the teacher's output for each output of the student's
    head; None leaves the student a new head.
    Returns the share of the variance of the teacher's last hidden states that those of the student explain on these texts.
    """
    student.eval(), teacher.eval()
    return _Start(teacher, student, [*texts]).run(rows)


class _Norm(NamedTuple):
    """The teacher's side of a norm: its sums (N, D) over all tokens, gain γ and offset β (D)."""

    sums: Tensor
    gain: Tensor
    offset: Tensor

    @property
    def normal(self) -> Tensor:
        return _normal(self.sums)

    @property
    def spread(self) -> Tensor:
        """(N, 1) σ of each token's sum."""
        return self.sums.std(-1, unbiased=False, keepdim=True)


class _Start:
    def __init__(self, teacher: Encoder, student: Encoder, texts: list[Inputs]) -> None:
        self.teacher, self.student, self.texts = teacher, student, texts
        self.source, self.target = parts_of(teacher.model), parts_of(student.model)
        self.masks = [inputs["attention_mask"].bool() for inputs in texts]
        self.layers = [t for _, t in resolve("uniform", len(self.target.blocks), len(self.source.blocks), lowest=1)]
        self.norms = self._norms()
        self.basis = _basis([norm.normal for norm in self.norms.values() if len(norm.sums)], student.spec.hidden)

    def run(self, rows: Sequence[int] | slice | None) -> float:
        self._embed()
        embeddings = self.student.model.base_model.embeddings
        names = ("input_ids", "token_type_ids") if "token_type_embeddings" in self.target.tables else ("input_ids",)
        stream = [embeddings(**{name: inputs[name] for name in names if name in inputs}) for inputs in self.texts]
        for block, number in zip(self.target.blocks, self.layers, strict=True):
            last = block is self.target.blocks[-1]
            before = self.source.blocks[number - 2].norm_2 if number > 1 else self.source.norm
            stream = self._attention(block, self.source.blocks[number - 1], self.norms[before], stream)
            stream = self._network(block, self.source.blocks[number - 1], stream, last)
        if rows is not None and self.target.head and self.source.head:
            self._head(self.target.head, self.source.head, rows)
        left = (self._flat(stream) - self._final).square().sum() / (self._final - self._final.mean(0)).square().sum()
        return 1 - left.item()

    @property
    def _final(self) -> Tensor:
        """(N, d): the teacher's last hidden states in the basis."""
        norm = self.norms[self.source.blocks[-1].norm_2]
        return (norm.normal * norm.gain + norm.offset) @ self.basis

    @property
    def _last_normal(self) -> Tensor:
        """(N, d): what the last norm gets. Nothing reads its output as n: it gives the teacher's states in the basis, whose
        length differs from token to token more or less with another origin and scale. The better of two is taken."""
        final = self._final
        choices = (
            self.norms[self.source.blocks[-1].norm_2].normal @ self.basis,
            (final - final.mean(0)) / final.std(0),
        )
        return min(choices, key=lambda each: _affine(_normal(each), final)[2])

    def _norms(self) -> dict[nn.LayerNorm, _Norm]:
        """Of the embeddings and the layers that are used; those before them give their gain and offset alone."""
        used = [self.source.norm]
        for number in self.layers:
            used += [self.source.blocks[number - 1].norm_1, self.source.blocks[number - 1].norm_2]
        inputs = _inputs_of(self.teacher, used, self.texts, self.masks)
        every = [self.source.norm, *(norm for each in self.source.blocks for norm in (each.norm_1, each.norm_2))]
        none = torch.empty(0, self.teacher.spec.hidden)
        return {norm: _Norm(inputs.get(norm, none), _numbers(norm.weight), _numbers(norm.bias)) for norm in every}

    def _embed(self) -> None:
        tables = {name: _numbers(each.weight) @ self.basis for name, each in self.source.tables.items()}
        if len(tables) > len(self.target.tables):  # DistilBERT has no token types
            tables["position_embeddings"] += tables["token_type_embeddings"][0]
        for name, table in self.target.tables.items():
            own = tables.get(name, torch.zeros_like(table.weight))
            table.weight[: len(own)] = own[: len(table.weight)]
        _no_affine(self.target.norm)

    def _attention(self, block: Block, source: Block, before: _Norm, stream: list[Tensor]) -> list[Tensor]:
        states, norm = self._flat(stream), self.norms[source.norm_1]
        self._attention_heads(block, source, before, states)
        contexts = [self._attend(block, *each) for each in zip(stream, self.masks, strict=True)]
        _fit(block.out, self._flat(contexts), norm.spread / before.gain.mean() * (norm.normal @ self.basis) - states)
        _no_affine(block.norm_1)
        return [block.norm_1(block.out(new) + old) for new, old in zip(contexts, stream, strict=True)]

    def _attention_heads(self, block: Block, source: Block, before: _Norm, states: Tensor) -> None:
        """Queries, keys and values of the heads that write most. states (N, d): what they read."""
        query, key, value = (self._read(each, before) for each in (source.query, source.key, source.value))
        ones = torch.cat([states, torch.ones(len(states), 1)], 1)
        moments = _root(ones.T @ ones / len(ones))
        # A constant added to all keys changes no attention, and one added to all values changes the fitted bias alone.
        centred = states - states.mean(0)
        spread = _root(centred.T @ centred / len(centred))
        question, output = torch.cat([query[0], query[1][:, None]], 1), self.basis.T @ _numbers(source.out.weight)
        heads, width = self.student.spec.heads, len(question) // self.teacher.spec.heads
        size = len(block.query.weight) // heads
        each = []
        for part in (slice(at, at + width) for at in range(0, len(question), width)):
            q, k = _factors(question[part] @ moments, key[0][part] @ spread, size)
            _, v = _factors(output[:, part].T, value[0][part] @ spread, size)
            each.append((v.square().sum().item(), q, k, v))
        for bias in (block.query.bias, block.key.bias, block.value.bias):
            bias.zero_()
        block.query.weight.zero_()  # where a head is larger than the teacher's, its random keys are asked for nothing yet
        scale = (size / width) ** 0.25  # scores are divided by the root of a head's size
        for place, (_, q, k, v) in enumerate(sorted(each, key=lambda factors: -factors[0])[:heads]):
            own = slice(place * size, place * size + len(q))
            both = _solve(q, moments) * scale
            block.query.weight[own], block.query.bias[own] = both[:, :-1], both[:, -1]
            block.key.weight[own], block.value.weight[own] = _solve(k, spread) * scale, _solve(v, spread)

    def _network(self, block: Block, source: Block, stream: list[Tensor], last: bool) -> list[Tensor]:
        """The feed-forward network. The last norm of all gives the teacher's own states in the basis, with their offset."""
        before, norm, states = self.norms[source.norm_1], self.norms[source.norm_2], self._flat(stream)
        weight, bias = self._read(source.up, before)
        active = block.activation(F.linear(states, weight, bias))
        force = active.square().mean(0) * _numbers(source.down.weight).square().sum(0)
        keep = force.topk(min(len(block.up.weight), len(weight))).indices
        block.up.weight[: len(keep)], block.up.bias[: len(keep)] = weight[keep], bias[keep]
        normal = self._last_normal if last else norm.normal @ self.basis
        _fit(block.down, block.activation(block.up(states)), norm.spread / before.gain.mean() * normal - states)
        _no_affine(block.norm_2)
        new = [block.down(block.activation(block.up(each))) + each for each in stream]
        if last:
            gain, offset, _ = _affine(self._flat([block.norm_2(each) for each in new]), self._final)
            block.norm_2.weight.copy_(gain), block.norm_2.bias.copy_(offset)
        return [block.norm_2(each) for each in new]

    def _head(self, target: tuple[nn.Linear, nn.Linear], source: tuple[nn.Linear, nn.Linear], rows: Any) -> None:
        """The units of the hidden map that move the outputs most, then a fit of the teacher's outputs."""
        (hidden, out), (teacher_hidden, teacher_out) = target, source
        features, readout = (
            _inputs_of(self.teacher, [teacher_out], self.texts)[teacher_out],
            _numbers(teacher_out.weight),
        )
        force = features.var(0) * readout.square().sum(0)
        keep = force.topk(min(len(hidden.weight), len(force))).indices
        hidden.weight[: len(keep)] = _numbers(teacher_hidden.weight)[keep] @ self.basis
        hidden.bias[: len(keep)] = _numbers(teacher_hidden.bias)[keep]
        answers = (features @ readout.T + _numbers(teacher_out.bias))[:, rows]
        _fit(out, _inputs_of(self.student, [out], self.texts)[out], answers)

    def _read(self, linear: nn.Linear, norm: _Norm) -> tuple[Tensor, Tensor]:
        """Weight and bias that read n_s as `linear` reads x = γ n + β."""
        weight = _numbers(linear.weight)
        return (weight * norm.gain) @ self.basis, _numbers(linear.bias) + weight @ norm.offset

    def _attend(self, block: Block, states: Tensor, mask: Tensor) -> Tensor:
        q, k, v = (
            each(states).unflatten(-1, (self.student.spec.heads, -1)).transpose(1, 2)
            for each in (block.query, block.key, block.value)
        )
        return F.scaled_dot_product_attention(q, k, v, attn_mask=mask[:, None, None]).transpose(1, 2).flatten(2)

    def _flat(self, states: list[Tensor]) -> Tensor:
        """(N, …) of all tokens that are not padding."""
        return torch.cat([each[mask] for each, mask in zip(states, self.masks, strict=True)])


def _inputs_of(
    encoder: Encoder, modules: Sequence[nn.Module], texts: list[Inputs], masks: list[Tensor] | None = None
) -> dict[Any, Tensor]:
    """module → what it reads (N, …) while the model answers. masks: which tokens; None for modules that read a row a text."""
    sink: dict[Any, list[Tensor]] = {module: [] for module in modules}

    def keep(module: nn.Module, args: tuple[Tensor, ...]) -> None:
        sink[module].append(_numbers(args[0]))

    hooks = [module.register_forward_pre_hook(keep) for module in modules]
    device = next(encoder.parameters()).device
    for inputs in texts:
        encoder({name: each.to(device) for name, each in inputs.items()})
    for hook in hooks:
        hook.remove()
    if masks is None:
        return {module: torch.cat(each) for module, each in sink.items()}
    return {
        module: torch.cat([part[mask] for part, mask in zip(each, masks, strict=True)]) for module, each in sink.items()
    }


def _numbers(tensor: Tensor) -> Tensor:
    """Of a teacher of any dtype on any device."""
    return tensor.float().cpu()


def _basis(normals: Sequence[Tensor], width: int) -> Tensor:
    """(D, width): the main directions of all rows, turned so that all coordinates are about as large.

    A norm subtracts the mean of a token's coordinates: the turn gives this direction to the least of the main ones.
    """
    second = torch.stack([(each.T @ each).double() / len(each) for each in normals]).mean(0)
    main = torch.linalg.eigh(second).eigenvectors[:, -width:]
    turn = torch.randn(width, width, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    turn[:, 0] = 1.0
    return (main @ torch.linalg.qr(turn).Q.T).float()


def _root(moments: Tensor) -> Tensor:
    """Lower L with L Lᵀ the second moments. A norm's output has no mean over its coordinates: a small diagonal makes L exist."""
    more = 1e-4 * moments.diagonal().mean() * torch.eye(len(moments), dtype=torch.float64)
    return torch.linalg.cholesky(moments.double() + more).float()


def _solve(factor: Tensor, root: Tensor) -> Tensor:
    """factor root⁻¹."""
    return torch.linalg.solve_triangular(root, factor, upper=False, left=False)


def _factors(left: Tensor, right: Tensor, rank: int) -> tuple[Tensor, Tensor]:
    """left (r, n), right (r, m) → a (k, n), b (k, m), k = min(rank, r), with aᵀ b the best approximation of leftᵀ right."""
    (q_1, r_1), (q_2, r_2) = torch.linalg.qr(left.T), torch.linalg.qr(right.T)
    u, s, v = torch.linalg.svd(r_1 @ r_2.T)
    half = s[:rank].sqrt()
    return (q_1 @ u[:, :rank] * half).T, (q_2 @ v[:rank].T * half).T


def _fit(linear: nn.Linear, features: Tensor, target: Tensor) -> None:
    """Ridge regression of target (N, m) on features (N, n), with a bias."""
    mean, centre = features.mean(0), target.mean(0)
    centred = features - mean
    gram = (centred.T @ centred).double()
    gram += RIDGE * gram.diagonal().mean() * torch.eye(len(gram), dtype=torch.float64)
    weight = torch.linalg.solve(gram, (centred.T @ (target - centre)).double()).float().T
    linear.weight.copy_(weight), linear.bias.copy_(centre - weight @ mean)


def _affine(normal: Tensor, target: Tensor) -> tuple[Tensor, Tensor, float]:
    """Gain and offset (d) of each coordinate by least squares, and the squares that are left. normal, target: (N, d)."""
    centred, distance = normal - normal.mean(0), target - target.mean(0)
    gain = (centred * distance).sum(0) / centred.square().sum(0)
    return gain, target.mean(0) - gain * normal.mean(0), (distance - gain * centred).square().sum().item()


def _normal(sums: Tensor) -> Tensor:
    return F.layer_norm(sums, sums.shape[-1:])


def _no_affine(norm: nn.LayerNorm) -> None:
    norm.weight.fill_(1.0), norm.bias.zero_()
