"""`LocalTeacher`: a live, frozen model in this process. Gives logits, hidden states and attention of every layer."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cached_property

import torch

from mangakd.core.outputs import Batch, Outputs
from mangakd.core.requires import Need
from mangakd.core.spec import Head, ModelSpec
from mangakd.models.encoder import Encoder, encoder_digest
from mangakd.models.labels import alignment
from mangakd.teachers.base import TeacherProvider, all_layers, digest
from mangakd.teachers.options import Member, TeacherContext, TeacherOptions


@dataclass(frozen=True)
class Unread:
    """A model on disk. weights: `encoder_digest` of what `read` returns."""

    spec: ModelSpec
    weights: str
    read: Callable[[], Encoder]


class LocalTeacher(TeacherProvider):
    """head: the task's; the model's logits are put into the order of its labels by name.

    A model that is unread is read when it is first needed: a full store is named and found without it.

    Raises UserError where the model has another kind of head or other labels; RuntimeError where someone switched the
    teacher to training.
    """

    def __init__(self, model: Encoder | Unread, head: Head) -> None:
        self._model = model
        self._order = alignment(model.spec.head, head, model.spec.name)
        self.spec = model.spec if head.is_models_own else replace(model.spec, head=head)
        self._weights = encoder_digest(model) if isinstance(model, Encoder) else model.weights

    @cached_property
    def encoder(self) -> Encoder:
        model = self._model if isinstance(self._model, Encoder) else self._model.read()
        return model.eval().requires_grad_(False)

    @property
    def gives(self) -> Need:
        return all_layers(self.spec)

    @property
    def encoders(self) -> list[Encoder]:
        return [self.encoder]

    @property
    def fingerprint(self) -> str:
        return digest(self._weights, *self.spec.head.names)

    def prepare(self, device: torch.device, need: Need) -> "LocalTeacher":
        self.encoder.to(device).require(need)
        return self

    def __call__(self, batch: Batch) -> Outputs:
        self._assert_frozen()
        # no_grad, not inference_mode: inference tensors break backward in MSE and products.
        with torch.no_grad():
            outputs = self.encoder(batch["teacher"])
        if self._order is not None:
            outputs = replace(outputs, logits=outputs.answer[..., self._order.to(outputs.answer.device)])
        return outputs

    def _assert_frozen(self) -> None:
        # A framework that calls .train() on everything, or an optimizer given the wrong parameters, changes the teacher
        # without a word; looking costs microseconds.
        if any(module.training for module in self.encoder.modules()):
            raise RuntimeError("the teacher was switched to training mode: its dropout would blur the soft targets")
        if any(parameter.requires_grad for parameter in self.encoder.parameters()):
            raise RuntimeError("the teacher's parameters require gradients: it must stay frozen")


@dataclass(kw_only=True)
class Local(TeacherOptions):
    """teacher=local. seed: of its fine-tuning, where it needs one."""

    seed: int = 0

    @property
    def models(self) -> list[Member]:
        return [Member(self.path, self.seed, self.reads)]

    def gives(self, spec: ModelSpec) -> Need:
        return all_layers(spec)

    def provider(self, context: TeacherContext) -> LocalTeacher:
        return LocalTeacher(context.load(self.models[0]), context.head)
