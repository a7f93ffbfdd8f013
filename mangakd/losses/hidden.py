"""Hidden states: the student's mapped layers learn the teacher's, through a learnt projection where the sizes differ.

Formula, with h' = W h_student + b (then LayerNorm, if asked), summed over mapped pairs and valid tokens:

    mse      mean_d (h' − h_teacher)²       FitNets' hint; TinyBERT's hidden and embedding loss (layer 0)
    cosine   1 − cos(h', h_teacher)         DistilBERT
    count = valid tokens · pairs

Of models with an encoder and a decoder, the first layers are the encoder's, which have states of the source's tokens alone,
and the others the decoder's, at the target tokens. A token's distance is then the mean over the pairs of its own stack;
tokens of a stack without a pair add 0.

So neither padding, nor batch size, nor the number of pairs changes the scale. `bind` builds the projections from the two sizes.
They belong to the loss: they are trained, checkpointed and sharded with it. Each pair has its own projection, named after the
pair, so that a checkpoint of another layer map fails strict loading instead of loading the wrong layer.

Shapes: hidden states (B, T, D_s) of the student and (B, T, D_t) of the teacher; mask (B, T); W (D_t, D_s). B rows, T tokens, D
hidden size.

Source: Romero et al. 2015 (FitNets, arXiv:1412.6550); Jiao et al. 2020 (TinyBERT, arXiv:1909.10351); cosine: Sanh et al. 2019
(DistilBERT, arXiv:1910.01108).

Deviations: from FitNets, any number of layers, and all terms are trained at once. From TinyBERT, one projection for each pair
(the paper shares one), the mean over pairs (the paper adds them up), and every token of a step counts alike (the paper averages
each text by itself). From DistilBERT, no masked-LM term.
"""

from typing import ClassVar

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from mangakd.core.errors import UserError
from mangakd.core.layer_map import LayerMap, Pairs, between
from mangakd.core.outputs import Batch, Outputs, unpadded
from mangakd.core.requires import Need, Requires
from mangakd.core.schedule import Schedule
from mangakd.core.spec import ModelSpec
from mangakd.losses.aligned import check_same_vocabulary, token_mask
from mangakd.losses.base import LossCallback, LossOutput


class HiddenLoss(LossCallback):
    """Distance between mapped hidden states for each valid token (mse: mean over D_t; cosine: in [0, 2]).

    layer_map: see core/layer_map; 0 is the embedding output. compare: mse | cosine. projection: true | false | auto
    (only when D_s ≠ D_t). layer_norm: a LayerNorm after each projection.

    Raises UserError in `bind`: no teacher, unknown options, a layer map that does not fit, tokenizers that differ,
    sizes that differ without a projection, layer_norm without a projection; in `forward`: student and teacher read different
    shapes.
    """

    citation: ClassVar[str] = (
        "FitNets: Romero et al. 2015, arXiv:1412.6550; TinyBERT: Jiao et al. 2020, arXiv:1909.10351; "
        "cosine: Sanh et al. 2019, arXiv:1910.01108"
    )

    unit = "tokens"

    def __init__(
        self,
        *,
        weight: Schedule = 1.0,
        layer_map: LayerMap = "uniform",
        compare: str = "mse",
        projection: bool | str = "auto",
        layer_norm: bool = False,
    ) -> None:
        super().__init__(weight=weight)
        self.layer_map = layer_map
        self.compare = compare
        self.projection = projection
        self.layer_norm = layer_norm
        self.pairs: Pairs = ()
        self.projections = nn.ModuleDict()

    def bind(self, student: ModelSpec, teacher: ModelSpec | None) -> None:
        teacher = self.teacher_spec(teacher)
        self.check_choice("compare", ("mse", "cosine"))
        self.check_choice("projection", (True, False, "auto"))
        check_same_vocabulary(self, student, teacher)
        self.pairs = between(self.layer_map, student, teacher, key=self.key("layer_map"))
        if self._projects(student, teacher):
            self.projections = nn.ModuleDict({_name(s, t): self._build(student, teacher) for s, t in self.pairs})
        self.requires = Requires(
            student=Need(hidden=frozenset(s for s, _ in self.pairs)),
            teacher=Need(hidden=frozenset(t for _, t in self.pairs)),
        )

    def forward(self, student: Outputs, teacher: Outputs | None, batch: Batch) -> LossOutput:
        """Hidden (B, T, D_s) and (B, T, D_t) of each pair, mask (B, T) → sum over pairs and valid tokens."""
        assert teacher is not None
        mask = token_mask(student, teacher)
        masks = [student.mask_of(s) for s, _ in self.pairs]
        distances = [
            self._distance(
                self._project(unpadded(student.hidden[s], own), s, t), unpadded(teacher.hidden[t].detach(), own)
            )
            for (s, t), own in zip(self.pairs, masks, strict=True)
        ]
        # A projection's bias is at padding, too. Replaced, not multiplied, so that its gradient is exactly 0.
        each = torch.stack(distances).masked_fill(~torch.stack(masks), 0.0)
        if student.targets is not None:
            each = each * self._shares(student.encoder_layers).to(each.device)[:, None, None]
        return LossOutput(each.sum(), mask.sum() * len(self.pairs))

    def _shares(self, encoder_layers: int) -> Tensor:
        """(pairs): all pairs for each pair of its stack, so that a token counts once whatever its stack has of pairs."""
        decodes = [s > encoder_layers for s, _ in self.pairs]
        return torch.tensor([len(decodes) / decodes.count(own) for own in decodes])

    def _distance(self, student: Tensor, teacher: Tensor) -> Tensor:
        """(B, T, D_t) twice → (B, T), fp32."""
        student = student.float()
        if self.compare == "cosine":
            return 1 - F.cosine_similarity(student, teacher, dim=-1)
        return (student - teacher).square().mean(-1)

    def _project(self, hidden: Tensor, student_layer: int, teacher_layer: int) -> Tensor:
        if not self.projections:
            return hidden
        projection = self.projections[_name(student_layer, teacher_layer)]
        # The projection's own dtype: fp32, unless the whole run is in bf16.
        return projection(hidden.to(next(projection.parameters()).dtype))

    def _projects(self, student: ModelSpec, teacher: ModelSpec) -> bool:
        differ = student.hidden != teacher.hidden
        if differ and self.projection is False:
            raise UserError(
                f"{self.key('projection')}=false needs equal hidden sizes; {student.name} has {student.hidden} and "
                f"{teacher.name} has {teacher.hidden}. Set {self.key('projection')}=auto."
            )
        projects = self.projection is True or differ
        if self.layer_norm and not projects:
            raise UserError(
                f"{self.key('layer_norm')}=true follows a projection and there is none (both hidden sizes are "
                f"{student.hidden}). Set {self.key('projection')}=true."
            )
        return projects

    def _build(self, student: ModelSpec, teacher: ModelSpec) -> nn.Module:
        linear = nn.Linear(student.hidden, teacher.hidden)
        return nn.Sequential(linear, nn.LayerNorm(teacher.hidden)) if self.layer_norm else linear


def _name(student_layer: int, teacher_layer: int) -> str:
    return f"{student_layer}_to_{teacher_layer}"
