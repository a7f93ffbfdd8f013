"""Build a student: from a hub id or folder, from sizes, or from the teacher's own layers.

A student from sizes starts from random weights and takes the teacher's vocabulary. A student from layers takes any subset
of the teacher's layers in any order, with its embeddings, pooler and head (as DistilBERT was initialised: Sanh et al. 2019).
"""

import copy
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from transformers import AutoConfig, AutoModelForSequenceClassification

from mangakd.core.errors import UserError
from mangakd.core.spec import ModelSpec, Problem
from mangakd.models import load
from mangakd.models.encoder import Encoder, layer_list


@dataclass(frozen=True)
class Student:
    """What conf/student holds. One of `path`, `layers`, `sizes` says where the student comes from; `path` wins.

    layers: teacher layers 1…L in the order the student shall have them. sizes: entries of a Hugging Face config with its
    `model_type`. lr: the peak learning rate that suits it; conf/optim reads it, nothing here does.
    """

    path: str | None = None
    layers: Sequence[int] | None = None
    sizes: dict[str, Any] = field(default_factory=dict)
    lr: float = 5e-4

    @property
    def own_tokenizer(self) -> bool:
        return self.path is not None

    def config(self, teacher: Any, tokenizer: Any) -> Any:
        """The student's Hugging Face config; `teacher` is the teacher's, `tokenizer` the one the student will read with."""
        if self.path is not None:
            return load.load_config(self.path, "student.path")
        if self.layers is not None:
            return self._layers_config(teacher)
        if "model_type" not in self.sizes:
            raise UserError(
                "the student has neither student.path, student.layers nor student.sizes.model_type; choose student=…"
            )
        sizes = dict(self.sizes)
        config = AutoConfig.for_model(sizes.pop("model_type"), **sizes)
        config.vocab_size = max(config.vocab_size, len(tokenizer)) if "vocab_size" in sizes else len(tokenizer)
        config.pad_token_id = tokenizer.pad_token_id
        return config

    def build(self, teacher: Encoder, tokenizer: Any, labels: tuple[str, ...], problem: Problem) -> Encoder:
        """The student with a head of `labels`, in train mode. Random parts follow torch's seed."""
        if self.path is not None:
            model, _ = load.load_classifier(self.path, labels, problem, "student.path")
        else:
            config = self.config(teacher.model.config, tokenizer)
            config.update(load.head_options(labels, problem))
            model = AutoModelForSequenceClassification.from_config(config, dtype=torch.float32)
            if self.layers is not None:
                copy_layers(teacher.model, model, self.layers, head=teacher.spec.labels == labels)
        # from_pretrained answers in eval mode and Lightning leaves it so.
        return load.encoder(model, f"student {model.config.model_type}", tokenizer).train()

    def spec(self, teacher: Any, tokenizer: Any, labels: tuple[str, ...], problem: Problem) -> ModelSpec:
        """The sizes without the weights: what preflight checks."""
        config = self.config(teacher, tokenizer)
        config.update(load.head_options(labels, problem))
        return ModelSpec.from_config(config, f"student {config.model_type}", load.vocabulary_digest(tokenizer))

    def _layers_config(self, teacher: Any) -> Any:
        assert self.layers is not None
        depth = teacher.num_hidden_layers
        wrong = [i for i in self.layers if not 1 <= i <= depth]
        if wrong or not self.layers:
            raise UserError(
                f"student.layers={list(self.layers)} must name teacher layers 1…{depth}"
                f"{f'; there is no layer {wrong}' if wrong else ''}. Example: student.layers=[2,4,6]."
            )
        config = copy.deepcopy(teacher)
        config.num_hidden_layers = len(self.layers)
        return config


def copy_layers(teacher: Any, student: Any, layers: Sequence[int], head: bool) -> None:
    """Copy embeddings, the named layers (1…L, in this order), pooler and, if `head`, the classifier into the student."""
    stack = layer_list(teacher, teacher.config.num_hidden_layers)
    if stack is None:
        raise UserError(
            f"student.layers needs a teacher with a list of layers; {teacher.config.model_type} shares its layers."
        )
    stem = next(name for name, module in teacher.named_modules() if module is stack)
    source = teacher.state_dict()
    weights = {name: tensor for name, tensor in source.items() if not name.startswith(f"{stem}.")}
    for new, old in enumerate(layers):
        prefix = f"{stem}.{old - 1}."
        weights |= {f"{stem}.{new}.{name[len(prefix) :]}": t for name, t in source.items() if name.startswith(prefix)}
    if not head:
        weights = {name: t for name, t in weights.items() if name.startswith(teacher.base_model_prefix + ".")}
    missing, unexpected = student.load_state_dict(weights, strict=False)
    lost = [name for name in missing if head or name.startswith(student.base_model_prefix + ".")]
    if lost or unexpected:
        raise RuntimeError(f"copying layers left {lost} unset and {unexpected} over")
